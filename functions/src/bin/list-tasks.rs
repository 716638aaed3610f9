//! `GET /api/tasks`: returns the caller's tasks in pages, newest first by default.
use shared::{
    Caller, Error, Request, Response, serve_reads,
    tasks::{self, ListQuery},
};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_reads(tasks::LIST, list_tasks).await
}

async fn list_tasks(caller: Caller, request: Request) -> Result<Response, Error> {
    let page = tasks::list(&caller, &ListQuery::from_request(&request)?).await?;
    Ok(Response::task_page(&caller, page))
}
