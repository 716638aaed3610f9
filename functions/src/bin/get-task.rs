//! `GET /api/tasks/{id}`: returns one of the caller's tasks.
use shared::{
    Caller, Error, Request, Response, serve_reads,
    tasks::{self, TaskId},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_reads(tasks::GET, get_task).await
}

async fn get_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let task = tasks::get(&caller, TaskId::from_request(&request)?).await?;
    Response::task_if_changed(&request, &task)
}
