//! Building for this machine: see [`xtask::build`].
use super::process::run_command;
use anyhow::Result;
use std::{num::NonZero, path::PathBuf, thread::available_parallelism};
use tokio::process::Command;
use xtask::place::target;

/// How many tests run at a time.
const THREADS_PER_PROCESSOR: usize = 3;

/// `cargo SUBCOMMAND` for the packages that are built together.
pub fn workspace_cargo(subcommand: &str) -> Command {
    xtask::build::cargo(subcommand).into()
}

/// `cargo test` for one target of those packages; the caller may add names of tests.
pub fn cargo_test(target: &[&str]) -> Command {
    let mut command = workspace_cargo("test");
    command.arg("--locked").args(target);
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        // They wait for servers most of the time.
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
