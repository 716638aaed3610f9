//! The time that Lambda leaves.
use anyhow::{Context as _, Result};
use std::time::Duration;

/// Waits for `work` as long as there is time.
pub async fn within<T>(time_left: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let seconds = time_left.as_secs();
    tokio::time::timeout(time_left, work)
        .await
        .with_context(|| format!("not done within the {seconds} s that there are"))?
}
