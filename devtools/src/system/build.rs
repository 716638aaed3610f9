//! Building for this machine: see [`xtask::build`].
use super::process::run_command;
use anyhow::Result;
use std::path::PathBuf;
use tokio::process::Command;
use xtask::place::target;

/// `cargo SUBCOMMAND` for the packages that are built together.
pub fn workspace_cargo(subcommand: &str) -> Command {
    xtask::build::cargo(subcommand).into()
}

/// `cargo test` for one target of those packages; the caller may add names of tests.
pub fn cargo_test(target: &[&str]) -> Command {
    let mut command = workspace_cargo("test");
    command.arg("--locked").args(target);
    command
}

/// Builds the functions, and returns the folder of their binaries.
pub async fn build_functions() -> Result<PathBuf> {
    let mut command = workspace_cargo("build");
    for function in xtask::build::functions()? {
        command.args(["--bin", &function]);
    }
    run_command(&mut command).await?;
    Ok(target().join("debug"))
}
