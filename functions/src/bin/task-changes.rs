//! `GET /api/tasks/changes`: returns what changed since a cursor, for a client that keeps a copy of the tasks.
use shared::{
    Caller, Error, Request, Response, serve_reads,
    tasks::{self, ChangesQuery},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_reads(tasks::CHANGES, task_changes).await
}

async fn task_changes(caller: Caller, request: Request) -> Result<Response, Error> {
    let changes = tasks::changes(&caller, &ChangesQuery::from_request(&request)?).await?;
    Ok(Response::task_changes(changes))
}
