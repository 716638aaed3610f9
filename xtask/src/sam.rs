//! AWS SAM: checks of template.yaml, and building what it deploys.
use crate::{
    process::{run, run_command, step},
    tools::{cargo_lambda, find_in_path, from_pypi, root, target},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::process::Command;

/// The versions that the template passes.
const SAM: &str = "aws-sam-cli==1.170.0";
const CFN_LINT: &str = "cfn-lint==1.58.0";
const CHECKOV: &str = "checkov==3.3.30";

/// How a function's rollout names the alarms that it watches, in template.yaml.
const WATCHED: &str = "DeploymentPreference: { Alarms: [";
/// The alarm that no rollout may watch, because it refers to the API.
const OF_THE_API: &str = "{ Ref: ServerErrors }, ";

/// `sam validate --lint`, cfn-lint and checkov on template.yaml; then what SAM's translator makes of it, by cfn-lint and for
/// circular dependencies. All without a network.
pub async fn check_template() -> Result<()> {
    step("sam validate --lint");
    run_command(sam().await?.args(["validate", "--lint", "--region", "us-east-1"])).await?;
    step(CFN_LINT);
    cfn_lint(&["template.yaml"]).await?;
    step(CHECKOV);
    let checkov = from_pypi("checkov", &[CHECKOV]).await?.join("checkov");
    let mut command = Command::new(checkov);
    command.args(["--file", "template.yaml", "--skip-download", "--quiet", "--compact"]).current_dir(root());
    run_command(&mut command).await?;

    step(format!("template.yaml as CloudFormation gets it: circular dependencies, and {CFN_LINT}"));
    let folder = target().join("test/cloudformation");
    let results = translate(&root().join("template.yaml"), &folder).await?;
    // The translator puts these parameters' values in their place.
    let arguments = ["--ignore-checks", "W2001", "--"].into_iter().map(str::to_owned).chain(results);
    cfn_lint(&arguments.collect::<Vec<_>>()).await?;
    find_planted_circle(&folder).await
}

async fn cfn_lint<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Result<()> {
    let program = from_pypi("cfn-lint", &[CFN_LINT]).await?.join("cfn-lint");
    run_command(Command::new(program).args(arguments).current_dir(root())).await
}

/// The files with what SAM's translator makes of a template, for each combination of parameters that matters.
async fn translate(template: &Path, folder: &Path) -> Result<Vec<String>> {
    let _ = fs::remove_dir_all(folder);
    let script = root().join("xtask/sam/translate.py");
    let mut python = Command::new(sam_folder().await?.join("python"));
    let output = python.args([&script, template, folder]).output().await?;
    let (files, messages) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}", messages.trim());
    println!("{}", messages.trim());
    ensure!(!files.trim().is_empty(), "SAM's translator made nothing of {}", template.display());
    Ok(files.lines().map(str::to_owned).collect())
}

/// Lets one rollout watch the alarm of the API, as all did once, and fails where that is not found: neither cfn-lint nor `sam
/// validate` sees it in template.yaml.
async fn find_planted_circle(folder: &Path) -> Result<()> {
    let text = fs::read_to_string(root().join("template.yaml"))?;
    let planted = text.replacen(WATCHED, &format!("{WATCHED}{OF_THE_API}"), 1);
    ensure!(planted != text, "template.yaml has no rollout that watches an alarm: {WATCHED:?}");
    let file = folder.with_file_name("circle.yaml");
    fs::write(&file, planted)?;
    match translate(&file, &folder.with_file_name("circle")).await {
        Err(error) if error.to_string().contains("circular dependency") => {
            println!("A circular dependency that was planted is found.");
            Ok(())
        }
        Err(error) => Err(error).context("a circular dependency that was planted is another error"),
        Ok(_) => bail!("a circular dependency that was planted is not found"),
    }
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
