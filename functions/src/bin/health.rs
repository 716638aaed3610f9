//! `GET /health`: reports that the API answers and, with `?deep=true`, that the database does. Needs no session and reveals
//! nothing else.
use shared::{Error, Probe, Request, Response, serve_without_session};
use std::{collections::BTreeMap, process::ExitCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_without_session(health).await
}

async fn health(database: Probe, request: Request) -> Result<Response, Error> {
    if is_deep(&request)? {
        database.ping().await?;
    }
    Ok(Response::ok(&BTreeMap::from([("status", "ok")])))
}

/// Whether the request asks for the database. If the parameter is sent twice, the last value counts.
fn is_deep(request: &Request) -> Result<bool, Error> {
    match request.query().filter(|(name, _)| name == "deep").last() {
        None => Ok(false),
        Some((_, value)) => value.parse().map_err(|_| Error::invalid("deep", "must be true or false")),
    }
}
