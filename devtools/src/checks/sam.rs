//! AWS SAM: checks of template.yaml, and `sam build`.
use crate::{
    system::process::{run, run_command},
    system::tools::{Environment, PythonTool, cargo_lambda, from_pypi},
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    time::Instant,
};
use tokio::process::Command;
use xtask::{
    place::{find_in_path, root, target},
    step,
};

/// The versions with which template.yaml passes.
const SAM: Environment = Environment { name: "sam", packages: &["aws-sam-cli==1.170.0"] };
const CFN_LINT: &str = "cfn-lint==1.58.0";
const CHECKOV: &str = "checkov==3.3.30";

/// Start of the list of alarms that a rollout watches, in template.yaml.
const WATCHED: &str = r#"DeploymentPreference: { Alarms: { "Fn::If": [HasAlarms, ["#;
/// The alarm that no rollout may watch: it refers to the API, which makes the dependency circular.
const API_ALARM: &str = "{ Ref: ServerErrors }, ";

/// Checks template.yaml with `sam validate --lint`, and it and edge.yaml with cfn-lint. Then checks the output of SAM's translator with
/// cfn-lint and for circular dependencies. Needs no network.
pub async fn check_template() -> Result<()> {
    step("sam validate --lint");
    run_command(command(&sam_folder().await?.join("sam")).args(["validate", "--lint", "--region", "us-east-1"]))
        .await?;
    step(CFN_LINT);
    cfn_lint(&["template.yaml"]).await?;
    // CloudFront's settings are in one region.
    cfn_lint(&["--regions", "us-east-1", "--", "edge.yaml"]).await?;
    step(format!("template.yaml as CloudFormation gets it: circular dependencies, and {CFN_LINT}"));
    let folder = target().join("test/cloudformation");
    let results = translate(&root().join("template.yaml"), &folder).await?;
    // W2001 reports unused parameters. The translator replaces references to parameters by their values.
    let arguments = ["--ignore-checks", "W2001", "--"].into_iter().map(str::to_owned).chain(results);
    cfn_lint(&arguments.collect::<Vec<_>>()).await?;
    find_planted_cycle(&folder).await
}

/// Runs checkov on template.yaml and edge.yaml. Needs no network.
pub async fn checkov() -> Result<()> {
    let checkov = from_pypi("checkov", &[CHECKOV]).await?.join("checkov");
    let mut command = Command::new(checkov);
    command
        .args(["--file", "template.yaml", "edge.yaml", "--skip-download", "--quiet", "--compact"])
        .current_dir(root());
    run_command(&mut command).await
}

async fn cfn_lint<S: AsRef<OsStr>>(arguments: &[S]) -> Result<()> {
    let program = from_pypi("cfn-lint", &[CFN_LINT]).await?.join("cfn-lint");
    run_command(Command::new(program).args(arguments).current_dir(root())).await
}

/// Runs SAM's translator for each relevant combination of parameters, and returns the files with its output.
async fn translate(template: &Path, folder: &Path) -> Result<Vec<String>> {
    let _ = fs::remove_dir_all(folder);
    let script = root().join("devtools/sam/translate.py");
    let mut python = Command::new(sam_folder().await?.join("python"));
    let output = python.args([&script, template, folder]).output().await?;
    let (files, messages) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}", messages.trim());
    println!("{}", messages.trim());
    ensure!(!files.trim().is_empty(), "SAM's translator made nothing of {}", template.display());
    Ok(files.lines().map(str::to_owned).collect())
}

/// Tests the check for circular dependencies: adds the API's alarm to one rollout, as all rollouts had it once, and
/// fails if the check does not find it. Neither cfn-lint nor `sam validate` finds it in template.yaml.
async fn find_planted_cycle(folder: &Path) -> Result<()> {
    let text = fs::read_to_string(root().join("template.yaml"))?;
    let planted = text.replacen(WATCHED, &format!("{WATCHED}{API_ALARM}"), 1);
    ensure!(planted != text, "template.yaml has no rollout that watches an alarm: {WATCHED:?}");
    let file = folder.with_file_name("circle.yaml");
    fs::write(&file, planted)?;
    match translate(&file, &folder.with_file_name("circle")).await {
        Err(error) if error.to_string().contains("circular dependency") => {
            println!("The check finds a planted circular dependency.");
            Ok(())
        }
        Err(error) => Err(error).context("the check reports another error for a planted circular dependency"),
        Ok(_) => bail!("the check does not find a planted circular dependency"),
    }
}

/// The oldest SAM CLI known to build and deploy the template: the version that the tests use.
const OLDEST_SAM: [u32; 3] = [1, 170, 0];

/// Runs `sam build` with this machine's compiler instead of Zig, which cross-compiles.
pub async fn build() -> Result<()> {
    let lambda = cargo_lambda().await?;
    let mut command = command(&sam_folder().await?.join("sam"));
    command.arg("build").env("PATH", path_with_cargo(&lambda)?).env("CARGO_LAMBDA_COMPILER", "cargo");
    write_settings_for_this_machine()?;
    command.env("CARGO_LAMBDA_GLOBAL", settings_for_this_machine());
    let began = Instant::now();
    run_command(&mut command).await?;
    println!("sam build took {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// The SAM CLI on the PATH, else the version that the tests use.
pub fn find() -> PythonTool {
    PythonTool::find("sam", SAM)
}

/// Fails if the SAM CLI is older than [`OLDEST_SAM`].
pub async fn check_version(sam: &Path) -> Result<()> {
    let output = command(sam).arg("--version").kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("{} cannot be started", sam.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let version = text.rsplit(' ').next().unwrap_or_default();
    let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
    let oldest = OLDEST_SAM.map(|number| number.to_string()).join(".");
    if !output.status.success() || numbers.is_empty() {
        bail!("{} does not report its version; SAM CLI {oldest} or newer is needed", sam.display());
    }
    if numbers[..] < OLDEST_SAM[..] {
        bail!(
            "{} is SAM CLI {version}, and {oldest} or newer is needed: 'pip install --upgrade \"aws-sam-cli>={oldest}\"', or take it off the PATH, and this command installs its own",
            sam.display()
        );
    }
    Ok(())
}

/// A SAM CLI command in the project's folder, without telemetry to AWS.
pub fn command(sam: &Path) -> Command {
    let mut command = Command::new(sam);
    command.current_dir(root()).env("SAM_CLI_TELEMETRY", "0");
    command
}

/// The PATH, extended where needed so that `sam build` finds cargo and cargo-lambda.
pub fn path_with_cargo(cargo_lambda: &Path) -> Result<OsString> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| find_in_path("cargo"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let present: Vec<_> = std::env::split_paths(&path).collect();
    let folders = [cargo_lambda.parent().map(PathBuf::from), cargo.and_then(|it| it.parent().map(PathBuf::from))];
    let missing = folders.into_iter().flatten().filter(|folder| !present.contains(folder));
    Ok(std::env::join_paths(missing.collect::<Vec<_>>().iter().chain(&present))?)
}

/// cargo-lambda settings for a build without a cross-compiler. Without them, cargo-lambda lets rustup download the
/// target.
pub const SETTINGS_FOR_THIS_MACHINE: &str = "[build]\nskip_target_check = true\n";

/// Path of the file with [`SETTINGS_FOR_THIS_MACHINE`].
pub fn settings_for_this_machine() -> PathBuf {
    target().join("tools/CargoLambda.toml")
}

/// Writes [`SETTINGS_FOR_THIS_MACHINE`] to their file.
pub fn write_settings_for_this_machine() -> Result<()> {
    let file = settings_for_this_machine();
    std::fs::create_dir_all(file.parent().context("a folder")?)?;
    Ok(std::fs::write(&file, SETTINGS_FOR_THIS_MACHINE)?)
}

/// Path of AWS's Runtime Interface Emulator, which is part of the SAM CLI.
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

/// A command of `sam local`, with the version that the tests use, and without its wait for log lines.
pub async fn local(subcommand: &str) -> Result<Command> {
    let mut command = command(&sam_folder().await?.join("python"));
    command.arg(root().join("devtools/sam/local.py")).args(["local", subcommand]);
    Ok(command)
}

async fn sam_folder() -> Result<PathBuf> {
    SAM.install().await
}
