//! The CloudFormation stack, as the SAM CLI reports it.
use crate::{checks::sam, system::process::run_command};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::{collections::BTreeMap, path::PathBuf};
use tokio::process::Command;
use xtask::{place::root, step};

/// A stack. It need not exist yet.
pub struct Stack {
    pub sam: PathBuf,
    pub name: String,
    pub region: String,
    /// The AWS credentials profile from samconfig.toml.
    pub profile: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    output_key: String,
    output_value: String,
}

impl Stack {
    /// Returns the `sam list stack-outputs` command.
    pub fn outputs_command(&self) -> Command {
        let mut command = sam::command(&self.sam);
        command.args(["list", "stack-outputs", "--stack-name", &self.name, "--region", &self.region]);
        command.args(["--output", "json"]);
        if let Some(profile) = &self.profile {
            command.args(["--profile", profile]);
        }
        command
    }

    /// Returns the command that removes what deployments leave behind. It runs with the Python of the SAM CLI, which has boto3.
    pub fn sweep_command(&self) -> Command {
        let mut command = Command::new(self.sam.with_file_name("python3"));
        command.arg(root().join("devtools/sam/sweep.py")).args([&self.name, &self.region]).args(&self.profile);
        command
    }

    /// Removes what deployments leave behind. If that fails, the deployment has succeeded nevertheless: the next one tries again.
    pub async fn sweep(&self) {
        step("Removing old versions of the functions");
        if let Err(error) = run_command(&mut self.sweep_command()).await {
            println!("NOT REMOVED: {error:#}. The next deployment tries again");
        }
    }

    /// Returns the outputs, or `None` if the stack does not exist or no deployment of it has completed.
    pub async fn outputs(&self) -> Result<Option<BTreeMap<String, String>>> {
        let output = self.outputs_command().kill_on_drop(true).output().await;
        let output = output.with_context(|| format!("{} cannot be started", self.sam.display()))?;
        if output.status.success() {
            let outputs: Vec<Output> = serde_json::from_slice(&output.stdout)
                .context("'sam list stack-outputs' did not return a list of outputs")?;
            return Ok(Some(outputs.into_iter().map(|it| (it.output_key, it.output_value)).collect()));
        }
        let text = String::from_utf8_lossy(&output.stderr);
        // SAM's messages for a missing stack and for a stack without outputs.
        if ["does not exist on Cloudformation", "Outputs do not exist for"].iter().any(|words| text.contains(words)) {
            return Ok(None);
        }
        let error = text.lines().rev().find_map(|line| line.strip_prefix("Error: ")).unwrap_or(text.trim());
        bail!(
            "AWS cannot be asked for the stack {} in {}: {error}. Are your credentials valid? 'aws sts get-caller-identity' \
             prints whose they are",
            self.name,
            self.region
        )
    }
}
