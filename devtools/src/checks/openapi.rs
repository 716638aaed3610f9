//! The tools that check openapi.yaml: Spectral with OWASP's rules, and Schemathesis.
use crate::{
    system::process::run_command,
    system::tools::{from_npm, from_pypi, lock, node},
};
use anyhow::Result;
use std::path::PathBuf;
use tokio::process::Command;
use xtask::{place::root, step};

/// The version that the contract's configuration was written for.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Spectral, with every finding a failure.
pub async fn lint() -> Result<()> {
    let folder = root().join("devtools/openapi");
    let _lock = lock("openapi")?;
    from_npm("Spectral", &folder).await?;
    step("Spectral");
    run_command(Command::new(node("npm")?).args(["run", "--silent", "lint"]).current_dir(folder)).await
}

/// Schemathesis, from PyPI.
pub async fn schemathesis() -> Result<PathBuf> {
    Ok(from_pypi("schemathesis", &[SCHEMATHESIS]).await?.join("schemathesis"))
}
