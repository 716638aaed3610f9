//! AWS SAM: checks of template.yaml, and building what it deploys.
use crate::{
    process::{run, run_command, step},
    tools::{cargo_lambda, find_in_path, from_pypi, root, target},
};
use anyhow::{Context as _, Result};
use std::{ffi::OsString, path::PathBuf, time::Instant};
use tokio::process::Command;

/// The versions that the template passes.
const SAM: &str = "aws-sam-cli==1.170.0";
const CFN_LINT: &str = "cfn-lint==1.58.0";
const CHECKOV: &str = "checkov==3.3.30";

/// `sam validate --lint`, cfn-lint and checkov, all without a network.
pub async fn check_template() -> Result<()> {
    step("sam validate --lint");
    run_command(sam().await?.args(["validate", "--lint", "--region", "us-east-1"])).await?;
    step(CFN_LINT);
    let cfn_lint = from_pypi("cfn-lint", &[CFN_LINT]).await?.join("cfn-lint");
    run_command(Command::new(cfn_lint).arg("template.yaml").current_dir(root())).await?;
    step(CHECKOV);
    let checkov = from_pypi("checkov", &[CHECKOV]).await?.join("checkov");
    let mut command = Command::new(checkov);
    command.args(["--file", "template.yaml", "--skip-download", "--quiet", "--compact"]).current_dir(root());
    run_command(&mut command).await
}

/// `sam build`, with the compiler of this machine instead of the Zig that a release for another one would use.
pub async fn build() -> Result<()> {
    let mut command = sam().await?;
    let settings = target().join("tools/CargoLambda.toml");
    // Else cargo-lambda would ask rustup for the target, which downloads it.
    std::fs::write(&settings, "[build]\nskip_target_check = true\n")?;
    let began = Instant::now();
    command.arg("build").env("CARGO_LAMBDA_COMPILER", "cargo").env("CARGO_LAMBDA_GLOBAL", &settings);
    run_command(&mut command).await?;
    println!("sam build took {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// AWS's Runtime Interface Emulator, which comes with the SAM CLI.
pub async fn emulator() -> Result<PathBuf> {
    let programs = sam_folder().await?;
    let packages = programs.join("../lib");
    let emulator = std::fs::read_dir(&packages)?
        .filter_map(Result::ok)
        .map(|python| python.path().join("site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"))
        .find(|path| path.is_file())
        .with_context(|| format!("the SAM CLI under {} has no Runtime Interface Emulator", packages.display()))?;
    run("chmod", ["+x", &emulator.to_string_lossy()]).await?;
    Ok(emulator)
}

/// The SAM CLI in the project's folder, with cargo and cargo-lambda on its PATH.
async fn sam() -> Result<Command> {
    let programs = sam_folder().await?;
    let lambda = cargo_lambda().await?;
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| find_in_path("cargo"));
    let folders = [lambda.parent().map(PathBuf::from), cargo.and_then(|cargo| cargo.parent().map(PathBuf::from))];
    let path: OsString = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.into_iter().flatten().chain(std::env::split_paths(&path)))?;
    let mut command = Command::new(programs.join("sam"));
    command.current_dir(root()).env("PATH", path).env("SAM_CLI_TELEMETRY", "0");
    Ok(command)
}

async fn sam_folder() -> Result<PathBuf> {
    from_pypi("sam", &[SAM]).await
}
