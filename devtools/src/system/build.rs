//! Builds for this machine: see [`xtask::build`].
use super::process::run_command;
use anyhow::Result;
use std::{num::NonZero, path::PathBuf, thread::available_parallelism};
use tokio::process::Command;
use xtask::place::target;

/// Number of tests that run at a time, per processor.
const THREADS_PER_PROCESSOR: usize = 3;

/// Returns `cargo SUBCOMMAND` for the packages that are built together.
pub fn workspace_cargo(subcommand: &str) -> Command {
    xtask::build::cargo(subcommand).into()
}

/// Returns `cargo test` for a target of these packages. The caller may add test names.
pub fn cargo_test(target: &[&str]) -> Command {
    let mut command = workspace_cargo("test");
    command.arg("--locked").args(target);
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        // Tests wait for servers most of the time.
        let processors = available_parallelism().map_or(1, NonZero::get);
        command.env("RUST_TEST_THREADS", (THREADS_PER_PROCESSOR * processors).to_string());
    }
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
