//! Runs the migrations: as a CloudFormation custom resource at every deployment, and by hand with commands such as
//! `{"command": "status"}`.
//!
//! This is the only function that acts as the owner role, so only it reads the owner's secret.
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

/// Seconds before Lambda's deadline at which the work must end. The rest is for sending the response.
const MARGIN_S: u64 = 10;

/// The input of an invocation.
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
    // Not deserialized by the runtime: its error could quote the event, which contains CloudFormation's signed URL.
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
