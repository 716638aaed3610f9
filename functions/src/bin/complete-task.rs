//! `PATCH /api/tasks/{id}/complete`: toggles or sets `completed` on one of the caller's tasks.
use shared::{
    Caller, Error, Request, Response, serve_writes,
    tasks::{self, IfMatch, TaskChanges, TaskId},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_writes(tasks::UPDATE, complete_task).await
}

async fn complete_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let changes = TaskChanges::from_completion_request(&request)?;
    let (id, if_match) = (TaskId::from_request(&request)?, IfMatch::from_request(&request)?);
    Ok(Response::task(&tasks::update(&caller, id, &changes, &if_match).await?))
}
