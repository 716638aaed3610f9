//! `GET /api/session`: returns the caller's user id and when the session expires.
use shared::{Caller, Error, Request, Response, serve_reads, session};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_reads(session::CURRENT, current_session).await
}

async fn current_session(caller: Caller, _: Request) -> Result<Response, Error> {
    Ok(Response::private_ok(&session::current(&caller).await?))
}
