//! `cargo xtask sizes`: what the release binaries weigh, and what they need of the machine that they run on.
use crate::{
    checks::elf::Program,
    system::process::{run_command, step},
    system::tools::{cargo, function_names, target},
};
use anyhow::{Context as _, Result, bail};
use std::fs;

/// Builds the functions for release, prints a line for each, and fails where one could not run on Lambda.
pub async fn sizes() -> Result<()> {
    step("Building the functions for release (link-time optimisation takes minutes)");
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "functions", "--bins"])).await?;
    println!("{:16} {:>9}  {:10}  shared libraries", "function", "bytes", "GLIBC");
    for name in function_names()? {
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
