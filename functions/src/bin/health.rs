//! `GET /health`: reports whether the database answers. Needs no session and reveals nothing else.
use shared::{Error, Probe, Response, serve_without_session};
use std::{collections::BTreeMap, process::ExitCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_without_session(health).await
}

async fn health(database: Probe) -> Result<Response, Error> {
    database.ping().await?;
    Ok(Response::ok(&BTreeMap::from([("status", "ok")])))
}
