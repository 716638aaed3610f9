//! `cargo xtask deploy`: checks an environment's settings, builds, deploys, and calls the deployed API.
mod calls;
mod config;
mod overrides;
mod programs;
mod settings;
mod stack;
mod template;

use crate::{
    checks::elf::Architecture,
    checks::sam,
    system::process::{Running, run_command, shell_line},
    system::tools::PythonTool,
};
use anyhow::{Context as _, Result, bail};
use config::Config;
use nix::sys::signal::Signal;
use settings::Settings;
use stack::Stack;
use std::{
    io::{IsTerminal as _, stdin},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use template::Template;
use tokio::process::Command;
use xtask::{cli::Deploy, place::root, step};

/// Number of hexadecimal digits of the commit in a deployment id.
const COMMIT_DIGITS: usize = 12;

/// Deploys an environment, or prints the commands for `--dry-run`.
pub async fn deploy(options: &Deploy) -> Result<()> {
    let config_file = options.config_file.clone().unwrap_or_else(|| root().join("samconfig.toml"));
    // The SAM CLI resolves a relative path in the template's folder, which is .aws-sam/build for `sam deploy`.
    let config_file = std::path::absolute(config_file)?;
    let template_file = match &options.built {
        Some(folder) => folder.join("template.yaml"),
        None => root().join("template.yaml"),
    };
    let environment = &options.environment;
    step(format!("Checking the settings of {environment} in {}", config_file.display()));
    let template = Template::read(&template_file).with_context(|| match options.built {
        Some(_) => "--built needs a folder that 'sam build' made",
        None => "the project has no template",
    })?;
    let mut config = Config::read(&config_file, environment)?;
    let settings = Settings::gather(&mut config, &options.values, &template).await?;
    let plan = Plan::make(options, &config_file, &config, settings)?;
    if options.dry_run {
        return plan.print(&config);
    }
    plan.carry_out(&config).await
}

/// Everything that is decided before the first command runs.
struct Plan<'o> {
    options: &'o Deploy,
    architecture: Architecture,
    settings: Settings,
    sam: PythonTool,
    build: Option<Build>,
    /// The output folder of `sam build`.
    folder: PathBuf,
    config_file: PathBuf,
    stack: Stack,
}

/// How the functions are compiled.
struct Build {
    cargo_lambda: PythonTool,
    command: Command,
    /// Whether cargo-lambda builds without a cross-compiler, and so needs its settings file for this machine.
    is_native: bool,
}

impl<'o> Plan<'o> {
    fn make(options: &'o Deploy, config_file: &Path, config: &Config, settings: Settings) -> Result<Self> {
        let name = Architecture::parse(&settings.architecture);
        let architecture = name.with_context(|| format!("Lambda has no processor '{}'", settings.architecture))?;
        let sam = sam::find();
        let stack_name = config.option("stack_name");
        let stack = Stack {
            sam: sam.program.clone(),
            name: stack_name.with_context(|| format!("{} has no stack_name", options.environment))?.to_owned(),
            region: settings.region.clone(),
            profile: config.option("profile").map(str::to_owned),
        };
        let folder = match &options.built {
            Some(folder) => std::path::absolute(folder)?,
            None => root().join(".aws-sam/build"),
        };
        let build = match options.built {
            Some(_) => None,
            None => Some(Build::plan(options, &sam, config_file, architecture)?),
        };
        Ok(Self { options, architecture, settings, sam, build, folder, config_file: config_file.to_owned(), stack })
    }

    /// Returns the `sam deploy` command.
    fn deploy(&self, deployment_id: &str, is_attended: bool) -> Command {
        let mut command = sam::command(&self.sam.program);
        command.args(["deploy", "--config-env", &self.options.environment, "--config-file"]).arg(&self.config_file);
        command.arg("--template-file").arg(self.folder.join("template.yaml"));
        command.args(["--region", &self.settings.region, "--no-fail-on-empty-changeset"]);
        if !is_attended {
            command.arg("--no-confirm-changeset");
        }
        // This option replaces the whole list in samconfig.toml, so it gets every parameter.
        command.arg("--parameter-overrides").args(self.settings.with_deployment_id(deployment_id));
        command
    }

    /// Prints the commands as a script, without running them.
    fn print(&self, config: &Config) -> Result<()> {
        println!("# {}: stack {} in {}", self.options.environment, self.stack.name, self.stack.region);
        for change in config.changes() {
            println!("# written to {}: {change}", self.config_file.display());
        }
        let lambda = self.build.as_ref().map(|build| &build.cargo_lambda);
        for tool in std::iter::once(&self.sam).chain(lambda) {
            let installation = tool.environment.and_then(|environment| environment.installation());
            for command in installation.into_iter().flatten() {
                println!("{}", shell_line(&command));
            }
        }
        println!("{}", shell_line(&self.stack.outputs_command()));
        if let Some(build) = &self.build {
            if build.is_native {
                let file = sam::settings_for_this_machine();
                println!("printf '{}' > {}", sam::SETTINGS_FOR_THIS_MACHINE.escape_default(), file.display());
            }
            println!("{}", shell_line(&build.command));
        }
        println!("# every program in {} is checked: {}, GLIBC, libraries", self.folder.display(), self.architecture);
        println!("{}", shell_line(&self.deploy(&deployment_id()?, stdin().is_terminal())));
        println!("{}", shell_line(&self.stack.outputs_command()));
        for call in calls::calls(self.settings.serves_docs()) {
            println!("# GET <Url>{} must return {}", call.path, call.expected.as_u16());
        }
        println!("{}", shell_line(&self.stack.sweep_command()));
        Ok(())
    }

    async fn carry_out(mut self, config: &Config) -> Result<()> {
        self.sam.install().await?;
        sam::check_version(&self.sam.program).await?;
        if let Some(build) = &self.build {
            build.cargo_lambda.install().await?;
        }
        step(format!("Asking AWS for the stack {} in {}", self.stack.name, self.stack.region));
        if self.stack.outputs().await?.is_none() {
            println!("It does not exist yet: this deployment creates it");
        }
        config.save()?;
        for change in config.changes() {
            println!("Written to {}: {change}", self.config_file.display());
        }
        if let Some(Build { command, is_native, .. }) = &mut self.build {
            step("Building the functions (sam build takes minutes)");
            if *is_native {
                sam::write_settings_for_this_machine()?;
            }
            run_command(command).await?;
        }
        step(format!("Checking the programs in {}", self.folder.display()));
        let template = Template::read(&self.folder.join("template.yaml"))?;
        let count = programs::check(&self.folder, &template, self.architecture, &self.options.environment)?;
        println!("{count} functions for {} run on Amazon Linux 2023", self.architecture);

        let (deployment_id, is_attended) = (deployment_id()?, stdin().is_terminal());
        step(format!("Deploying {deployment_id} to the stack {}", self.stack.name));
        let mut command = self.deploy(&deployment_id, is_attended);
        let status = if is_attended {
            Running::start_attended(&mut command, Signal::SIGTERM)?.wait().await?
        } else {
            Running::start(&mut command, Signal::SIGTERM)?.wait().await?
        };
        if !status.success() {
            bail!(
                "'sam deploy' failed ({status}). The first FAILED event above says why; what to do is in docs/deploy.md, \
                 \"When a deployment is stuck\""
            );
        }
        step("Calling the deployed API");
        if is_attended && config.asks_for_confirmation() {
            // The SAM CLI exits with 0 then too.
            println!("If you declined the changeset, these calls reach the previous deployment");
        }
        let outputs = self.stack.outputs().await?;
        let outputs = outputs.with_context(|| format!("the stack {} has no outputs yet", self.stack.name))?;
        let url = outputs.get("Url").context("the stack has no output Url")?;
        let calls = calls::make_all(
            &self.stack,
            url,
            self.settings.serves_docs(),
            Duration::from_secs(self.options.call_timeout),
        )
        .await;
        calls.map_err(|error| match outputs.get("DomainTarget") {
            Some(target) => error.context(format!(
                "the deployment succeeded, but the API does not work at its domain. Does the domain have a CNAME record \
                 to {target}, or HostedZoneId? A new record can take minutes"
            )),
            None => error.context("the deployment succeeded, but the API does not work"),
        })?;
        self.stack.sweep().await;
        println!("\nUrl      {url}");
        if let Some(docs) = outputs.get("DocsUrl") {
            println!("DocsUrl  {docs}");
        }
        Ok(())
    }
}

impl Build {
    fn plan(options: &Deploy, sam: &PythonTool, config_file: &Path, architecture: Architecture) -> Result<Self> {
        let is_native = architecture.is_native();
        let with_zig = options.zig || !is_native;
        let cargo_lambda = PythonTool::cargo_lambda(with_zig);
        let mut command = sam::command(&sam.program);
        command.args(["build", "--config-env", &options.environment, "--config-file"]).arg(config_file);
        // `sam build` does not read the parameters of `sam deploy`.
        command.arg("--parameter-overrides").arg(overrides::encode("Architecture", &architecture.to_string()));
        command.env("PATH", sam::path_with_cargo(&cargo_lambda.program)?);
        if with_zig {
            command.env("CARGO_LAMBDA_COMPILER", "cargo_zigbuild");
        } else if std::env::var_os("CARGO_LAMBDA_COMPILER").is_none() {
            command.env("CARGO_LAMBDA_COMPILER", "cargo");
        }
        if is_native {
            command.env("CARGO_LAMBDA_GLOBAL", sam::settings_for_this_machine());
        }
        Ok(Self { cargo_lambda, command, is_native })
    }
}

/// Returns an id such as `1790000000` + `0123456789ab` + `d`: the Unix time in seconds, the commit, and `d` if the work
/// tree has uncommitted changes.
///
/// The time comes first because SAM puts only the first ten characters into the logical id of a function's version. A
/// retry of the same commit needs a new version, else AWS answers "A version for this Lambda function exists".
fn deployment_id() -> Result<String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
    let commit: String = commit.trim().chars().take(COMMIT_DIGITS).collect();
    let is_changed = !commit.is_empty() && git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
    Ok(format!("{seconds:010}{commit}{}", if is_changed { "d" } else { "" }))
}

/// Returns git's output, or `None` if there is no git, no repository or no commit.
fn git(args: &[&str]) -> Option<String> {
    let root = root();
    // In a container, the folder may belong to another user. Without this, git refuses to read it.
    let trusted = format!("safe.directory={}", root.display());
    let output = std::process::Command::new("git").args(["-c", &trusted]).args(args).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
