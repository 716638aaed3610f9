//! `GET /api/tasks/{id}`: one of the caller's tasks.
use shared::{Caller, Error, Request, Response, serve, task_if_changed, tasks};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve(get_task).await
}

async fn get_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let task = tasks::get(&caller, request.task_id()?).await?;
    task_if_changed(&request, &task)
}
