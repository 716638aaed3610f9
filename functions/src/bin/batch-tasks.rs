//! `POST /api/tasks/batch`: creates, changes and deletes up to 100 of the caller's tasks in one request.
use shared::{
    Caller, Error, Request, Response, serve_writes,
    tasks::{self, Batch},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_writes(tasks::BATCH, batch_tasks).await
}

async fn batch_tasks(caller: Caller, request: Request) -> Result<Response, Error> {
    let results = tasks::batch(&caller, &Batch::from_request(&request)?).await?;
    Ok(Response::batch(results))
}
