//! On a schedule: removes expired rows, such as sessions that Better Auth leaves because nobody uses them again.
use shared::{purge::purge, serve_schedule};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_schedule(purge).await
}
