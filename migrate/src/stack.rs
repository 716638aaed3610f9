//! The CloudFormation stack that a deployment belongs to.
use anyhow::{Context as _, Result};
use aws_config::{BehaviorVersion, retry::RetryConfig};
use aws_sdk_cloudformation::Client;
use std::time::Duration;

/// Seconds that CloudFormation may take to report the stack's status, including all retries.
const STATUS_TIMEOUT_S: u64 = 5;

/// Returns whether the stack is rolling back. Logs a warning and returns false if the status is unknown.
///
/// CloudFormation undoes a failed Update with another Update that has the old properties. If that one migrated too, the
/// cause of the first failure, such as a wrong password in the owner's secret, would make it fail as well, and the
/// stack would end in UPDATE_ROLLBACK_FAILED.
///
/// The request does not show which of the two it is, and neither does its DeploymentId. AWS does not document whether
/// CloudFormation has already moved the function's alias back to the previous version when it calls. If it has, the
/// function's own DeploymentId equals the request's in both cases. So the stack's status decides.
pub async fn is_rolling_back(stack_id: &str) -> bool {
    let answer = tokio::time::timeout(Duration::from_secs(STATUS_TIMEOUT_S), status(stack_id)).await;
    match answer.with_context(|| format!("no answer within {STATUS_TIMEOUT_S} s")).flatten() {
        Ok(status) => status.contains("ROLLBACK"),
        Err(error) => {
            let cause = format!("{error:#}");
            tracing::warn!(cause, "the stack's status is not known: migrating as if it did not roll back");
            false
        }
    }
}

async fn status(stack_id: &str) -> Result<String> {
    let config = aws_config::defaults(BehaviorVersion::latest()).retry_config(RetryConfig::standard()).load().await;
    let answer = Client::new(&config).describe_stacks().stack_name(stack_id).send().await?;
    let status = answer.stacks().first().and_then(|stack| stack.stack_status());
    Ok(status.context("CloudFormation's answer has no status")?.as_str().to_owned())
}
