//! `POST /api/tasks`: adds a task to the caller's list; with an `Idempotency-Key`, only once.
use shared::{
    Caller, Error, Request, Response, serve_writes,
    tasks::{self, IdempotencyKey, NewTask},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_writes(tasks::CREATE, create_task).await
}

async fn create_task(caller: Caller, request: Request) -> Result<Response, Error> {
    let new = NewTask::from_request(&request)?;
    let (task, is_replay) = match IdempotencyKey::from_request(&request)? {
        Some(key) => tasks::create_once(&caller, &new, &key).await?,
        None => (tasks::create(&caller, &new).await?, false),
    };
    Ok(Response::created_task(&caller, &task, is_replay))
}
