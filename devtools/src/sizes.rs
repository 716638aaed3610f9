//! `cargo xtask sizes`: size, GLIBC version and libraries of the release binaries.
use crate::{checks::elf::check_all, system::process::run_command, system::tools::cargo};
use anyhow::Result;
use xtask::{build::functions, place::target, step};

/// Builds the functions for release and prints a line for each. Fails if one cannot run on Lambda.
pub async fn sizes() -> Result<()> {
    step("Building the functions for release (link-time optimisation takes minutes)");
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "functions", "--bins"])).await?;
    let folder = target().join("release");
    check_all(functions()?.iter().map(|name| (name.as_str(), folder.join(name))), None)
}
