//! On a schedule: removes expired sessions, which Better Auth leaves where nobody opens them, and whatever else ages.
use shared::{purge::purge, serve_schedule};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_schedule(purge).await
}
