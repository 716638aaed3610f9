//! Runs the migrations: as a CloudFormation custom resource at every deployment, and by hand with `{"command": "status"}`.
//!
//! This is the one function with the owner's rights, so it is the one that reads the owner's secret.
mod command;
mod custom_resource;
mod deadline;
mod secrets;
mod stack;

use anyhow::Result;
use command::Command;
use custom_resource::CustomResource;
use lambda_runtime::{LambdaEvent, Runtime, service_fn};
use serde::Deserialize;
use serde_json::Value;
use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

/// How long before Lambda's deadline the work has to be over, in seconds: what is left is for the answer.
const MARGIN_S: u64 = 10;

/// What the function is invoked with.
#[derive(Deserialize)]
#[serde(untagged)]
enum Event {
    CustomResource(CustomResource),
    ByHand(Command),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    shared::begin_log(&["shared", "migrate"]);
    match Runtime::new(service_fn(answer)).run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(cause = error.to_string(), "the Lambda Runtime API failed");
            ExitCode::FAILURE
        }
    }
}

async fn answer(event: LambdaEvent<Value>) -> Result<Value, lambda_runtime::Error> {
    let until = event.context.deadline().checked_sub(Duration::from_secs(MARGIN_S)).unwrap_or(SystemTime::UNIX_EPOCH);
    let time_left = until.duration_since(SystemTime::now()).unwrap_or_default();
    // Read by hand: the error of a parser could quote the event, which has CloudFormation's signed URL.
    let event = serde_json::from_value(event.payload);
    let result = match event {
        Ok(Event::CustomResource(request)) => custom_resource::answer(&request, time_left).await.map(|()| Value::Null),
        Ok(Event::ByHand(command)) => command::run(&command, time_left).await,
        Err(_) => Err(anyhow::anyhow!(
            "the event is neither CloudFormation's nor a command: {{\"command\": \"status\"}}, \"check\", \"up\", or \"down\" with a version to go back \"to\""
        )),
    };
    result.map_err(|error| {
        let cause = format!("{error:#}");
        tracing::error!(cause, "the invocation failed");
        cause.into()
    })
}
