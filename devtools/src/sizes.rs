//! `cargo xtask sizes`: size, GLIBC version and libraries of the release binaries.
use crate::{checks::elf::Program, system::process::run_command, system::tools::cargo};
use anyhow::{Context as _, Result, bail};
use std::fs;
use xtask::{build::functions, place::target, step};

/// Builds the functions for release and prints a line for each. Fails if one cannot run on Lambda.
pub async fn sizes() -> Result<()> {
    step("Building the functions for release (link-time optimisation takes minutes)");
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "functions", "--bins"])).await?;
    println!("{:16} {:>9}  {:10}  shared libraries", "function", "bytes", "GLIBC");
    for name in functions()? {
        let data = fs::read(target().join("release").join(&name))?;
        let program = Program::read(&data).with_context(|| format!("{name} cannot be deployed"))?;
        let (major, minor) = program.glibc;
        println!("{name:16} {:>9}  {:10}  {}", data.len(), format!("{major}.{minor}"), program.libraries.join(" "));
        if let Some(reason) = program.unfit() {
            bail!("{name} {reason}");
        }
    }
    Ok(())
}
