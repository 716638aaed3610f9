//! `GET /api/tasks/{id}`: one of the caller's tasks.
use shared::{Caller, Error, Request, Response, serve, task, tasks};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve(get_task).await
}

async fn get_task(caller: Caller, request: Request) -> Result<Response, Error> {
    Ok(task(&tasks::get(&caller, request.task_id()?).await?))
}
