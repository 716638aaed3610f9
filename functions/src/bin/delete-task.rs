//! `DELETE /api/tasks/{id}`: removes one of the caller's tasks.
use shared::{
    Caller, Error, Request, Response, serve_writes,
    tasks::{self, IfMatch, TaskId},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_writes(tasks::DELETE, delete_task).await
}

async fn delete_task(caller: Caller, request: Request) -> Result<Response, Error> {
    tasks::delete(&caller, TaskId::from_request(&request)?, &IfMatch::from_request(&request)?).await?;
    Ok(Response::no_content())
}
