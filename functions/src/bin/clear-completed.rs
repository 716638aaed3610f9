//! `DELETE /api/tasks`: removes the caller's completed tasks. The query must be exactly `status=completed`.
use shared::{Caller, Error, Request, Response, serve_writes, tasks};
use std::{collections::BTreeMap, process::ExitCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    serve_writes(tasks::CLEAR_COMPLETED, clear_completed).await
}

async fn clear_completed(caller: Caller, request: Request) -> Result<Response, Error> {
    // With any other query, the client means other tasks than those removed here.
    let query: Vec<_> = request.query().collect();
    if !matches!(&*query, [(name, value)] if name == "status" && value == "completed") {
        return Err(Error::invalid("status", "must be completed, and the only parameter"));
    }
    Ok(Response::ok(&BTreeMap::from([("deleted", tasks::clear_completed(&caller).await?)])))
}
