//! The time limit of an invocation.
use anyhow::{Context as _, Result};
use std::time::Duration;

/// Waits for `work`, and fails when `time_left` has passed.
pub async fn within<T>(time_left: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let seconds = time_left.as_secs();
    tokio::time::timeout(time_left, work)
        .await
        .with_context(|| format!("not done within the {seconds} s that there are"))?
}
