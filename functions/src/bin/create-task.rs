//! `POST /api/tasks`: adds a task to the caller's list.
use shared::{
    Caller, Error, Request, Response, created_task, serve,
    tasks::{self, NewTask},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve(create_task).await
}

async fn create_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let task = tasks::create(&caller, &NewTask::parse(&request)?).await?;
    Ok(created_task(&caller, &task))
}
