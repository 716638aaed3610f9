//! Checks the programs that `sam build` made, before anything is sent to AWS.
use super::template::Template;
use crate::checks::elf::{Architecture, Program, Unfit};
use anyhow::{Context as _, Result, bail};
use std::{fs, path::Path};

/// Fails unless `folder` has a program for each function of the template and Lambda can run all of them. Returns their
/// number.
pub fn check(folder: &Path, template: &Template, architecture: Architecture, environment: &str) -> Result<usize> {
    let functions = template.functions();
    let bootstrap = |function: &str| folder.join(function).join("bootstrap");
    let missing: Vec<_> = functions.iter().copied().filter(|function| !bootstrap(function).is_file()).collect();
    if functions.is_empty() || !missing.is_empty() {
        bail!("{} has no program for {}: 'sam build' did not make it", folder.display(), missing.join(", "));
    }
    let mut refused = Vec::new();
    for function in &functions {
        let data = fs::read(bootstrap(function))?;
        let program = Program::read(&data).with_context(|| format!("{function} cannot be deployed"))?;
        refused.extend(program.unfit_for(architecture).map(|reason| (*function, reason)));
    }
    if refused.is_empty() {
        return Ok(functions.len());
    }
    let lines: Vec<_> = refused.iter().map(|(function, reason)| format!("  {function} {reason}")).collect();
    let are_for_another_processor = refused.iter().all(|(_, reason)| matches!(reason, Unfit::Architecture { .. }));
    let cause = if are_for_another_processor {
        "Change the parameter Architecture in samconfig.toml, or build for it. Two ways:"
    } else {
        "The machine that built them has a newer Linux than Lambda (Amazon Linux 2023). Two ways to build for Lambda:"
    };
    bail!(
        "Lambda cannot run {} of the {} functions in {}:\n{}\n{cause}\n  cargo xtask deploy {environment} --zig\n  \
         'sam build' in the container public.ecr.aws/amazonlinux/amazonlinux:2023, then \
         cargo xtask deploy {environment} --built .aws-sam/build",
        refused.len(),
        functions.len(),
        folder.display(),
        lines.join("\n")
    )
}
