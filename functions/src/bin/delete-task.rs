//! `DELETE /api/tasks/{id}`: removes one of the caller's tasks.
use shared::{
    Caller, Error, Request, Response, no_content, serve,
    tasks::{self, IfMatch},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve(delete_task).await
}

async fn delete_task(caller: Caller, request: Request) -> Result<Response, Error> {
    tasks::delete(&caller, request.task_id()?, &IfMatch::of(&request)?).await?;
    Ok(no_content())
}
