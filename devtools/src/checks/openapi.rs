//! The tools that check openapi.yaml: Spectral with OWASP's rules, and Schemathesis.
use crate::{
    system::process::run_command,
    system::tools::{from_npm, from_pypi, lock, node},
};
use anyhow::Result;
use std::path::PathBuf;
use tokio::process::Command;
use xtask::{place::root, step};

/// The version that devtools/openapi/schemathesis.toml was written for.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Runs Spectral. Every finding is a failure.
pub async fn lint() -> Result<()> {
    let folder = root().join("devtools/openapi");
    let _lock = lock("openapi")?;
    from_npm("Spectral", &folder).await?;
    step("Spectral");
    run_command(Command::new(node("npm")?).args(["run", "--silent", "lint"]).current_dir(folder)).await
}

/// Installs Schemathesis from PyPI and returns the program's path.
pub async fn schemathesis() -> Result<PathBuf> {
    Ok(from_pypi("schemathesis", &[SCHEMATHESIS]).await?.join("schemathesis"))
}
