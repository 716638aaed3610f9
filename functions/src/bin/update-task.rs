//! `PUT /api/tasks/{id}`: updates one of the caller's tasks with the fields in the body.
use shared::{
    Caller, Error, Request, Response, serve_writes,
    tasks::{self, IfMatch, TaskChanges, TaskId},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_writes(tasks::UPDATE, update_task).await
}

async fn update_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let changes = TaskChanges::from_put_request(&request)?;
    let (id, if_match) = (TaskId::from_request(&request)?, IfMatch::from_request(&request)?);
    Ok(Response::task(&tasks::update(&caller, id, &changes, &if_match).await?))
}
