//! The CloudFormation stack that a deployment belongs to.
use anyhow::{Context as _, Result};
use aws_config::{BehaviorVersion, retry::RetryConfig};
use aws_sdk_cloudformation::Client;
use std::time::Duration;

/// How long CloudFormation may take to report the stack's status, with all retries, in seconds.
const STATUS_TIMEOUT_S: u64 = 5;

/// Whether the stack is rolling back. False, with a warning in the log, when CloudFormation does not say.
///
/// CloudFormation undoes an Update that failed by another Update, with the old properties. What made the first fail, such as a
/// wrong password in the owner's secret, makes the second fail too if it migrates, and the stack ends in UPDATE_ROLLBACK_FAILED.
///
/// The request does not say which of the two it is, and its DeploymentId does not show it: AWS does not document whether
/// CloudFormation has already put the function's alias back to the previous version when it calls. If it has, the function's own
/// DeploymentId equals the request's in both cases. Therefore the stack's status decides.
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
