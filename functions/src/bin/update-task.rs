//! `PUT /api/tasks/{id}`: changes what the body names of one of the caller's tasks.
use shared::{
    Caller, Error, Request, Response, serve, task,
    tasks::{self, IfMatch, TaskChanges},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve(update_task).await
}

async fn update_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let changes = TaskChanges::of_put(&request)?;
    Ok(task(&tasks::update(&caller, request.task_id()?, &changes, &IfMatch::of(&request)?).await?))
}
