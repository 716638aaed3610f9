//! `PATCH /api/tasks/{id}`: changes one of the caller's tasks by a JSON Merge Patch, in which null clears the description.
use shared::{
    Caller, Error, Request, Response, serve, task,
    tasks::{self, IfMatch, TaskChanges},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve(patch_task).await
}

async fn patch_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let changes = TaskChanges::of_merge_patch(&request)?;
    Ok(task(&tasks::update(&caller, request.task_id()?, &changes, &IfMatch::of(&request)?).await?))
}
