//! Builds for this machine: see [`xtask::build`].
use super::process::run_command;
use anyhow::Result;
use std::{num::NonZero, path::PathBuf, thread::available_parallelism};
use tokio::process::Command;
use xtask::place::target;

/// Number of tests that run at a time, per processor: they wait for servers most of the time.
const TESTS_PER_PROCESSOR: usize = 3;

/// Returns `cargo SUBCOMMAND` for the packages that are built together.
pub fn workspace_cargo(subcommand: &str) -> Command {
    xtask::build::cargo(subcommand).into()
}

/// Returns `cargo test` for a target of these packages. The caller may add test names.
pub fn cargo_test(target: &[&str]) -> Command {
    let mut command = workspace_cargo("test");
    command.arg("--locked").args(target);
    limit_tests(&mut command, TESTS_PER_PROCESSOR);
    command
}

/// Sets how many tests run at a time, per processor, unless `RUST_TEST_THREADS` does.
pub fn limit_tests(command: &mut Command, per_processor: usize) {
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let processors = available_parallelism().map_or(1, NonZero::get);
        command.env("RUST_TEST_THREADS", (per_processor * processors).to_string());
    }
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
