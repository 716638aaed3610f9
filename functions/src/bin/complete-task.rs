//! `PATCH /api/tasks/{id}/complete`: turns over, or sets, whether one of the caller's tasks is completed.
use shared::{
    Caller, Error, Request, Response, serve, task,
    tasks::{self, IfMatch, TaskChanges},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve(complete_task).await
}

async fn complete_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let changes = TaskChanges::of_completion(&request)?;
    Ok(task(&tasks::update(&caller, request.task_id()?, &changes, &IfMatch::of(&request)?).await?))
}
