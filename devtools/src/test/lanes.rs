//! Runs parts in parallel that do not disturb each other.
//!
//! Parts with servers run in the foreground. Checks, which compile or read, run at the same time in a separate process
//! with a lower priority; their output goes to a file. Parts that need results of both lanes come last.
use super::{
    parts::Context,
    run::{Results, run, summarise},
};
use crate::{
    servers::services::folder,
    system::process::{Running, tail},
};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use std::{
    fs::{self, File},
    path::PathBuf,
    time::Instant,
};
use tokio::process::Command;
use xtask::{
    cli::{Part, Test},
    durations::Short,
    step,
};

/// The parts to run, by lane.
pub struct Plan {
    /// Run in the foreground, in this order.
    servers: &'static [Part],
    /// Run at the same time, in a separate process.
    checks: &'static [Part],
    /// Run after both: parts that need the output of `Package`, or would make the others compile again.
    last: &'static [Part],
}

/// The parts to run before each push: code, API, migrations, contract and template. Excludes parts that need an AWS
/// SDK, a release build, a browser, or minutes.
pub const BEFORE_A_PUSH: Plan = Plan {
    servers: &[
        Part::Fmt,
        Part::Generated,
        Part::Clippy,
        Part::Dependencies,
        Part::Unit,
        Part::Api,
        Part::Fuzz,
        Part::Migrations,
    ],
    checks: &[Part::Contract, Part::Template],
    last: &[],
};

/// Parts that run only if they are named. `Arm64` needs root, a gigabyte, and half an hour the first time, and `SamLocal`
/// Docker.
#[cfg(test)]
pub const ONLY_IF_NAMED: [Part; 2] = [Part::Arm64, Part::SamLocal];

/// Every part except `Clippy`, which `ClippyAll` includes, and the two that run only if they are named.
pub const ALL: Plan = Plan {
    servers: &[
        Part::Unit,
        Part::Api,
        Part::Plans,
        Part::Fuzz,
        Part::Migrations,
        Part::Deploy,
        Part::Dev,
        Part::Faults,
        Part::Soak,
        Part::Reference,
        Part::FrontEnd,
        Part::BetterAuth,
        Part::Databases,
        Part::Versions,
    ],
    checks: &[
        Part::Fmt,
        Part::Generated,
        Part::Contract,
        Part::Template,
        Part::Checkov,
        Part::Dependencies,
        Part::Package,
        Part::SupplyChain,
        Part::ClippyAll,
        Part::Doc,
    ],
    last: &[Part::SamBuild, Part::Guard, Part::Migrate],
};

impl Plan {
    /// All parts, in the order of a sequential run.
    pub fn parts(&self) -> Vec<Part> {
        [self.servers, self.checks, self.last].concat()
    }

    /// Whether `Package` runs before the last parts.
    fn has_package(&self) -> bool {
        self.checks.contains(&Part::Package)
    }
}

/// Parts that run in a separate process.
pub struct Lane {
    process: Running,
    log: PathBuf,
    began: Instant,
}

/// Runs the parts of a plan. The first failure in either lane ends both, unless `--keep-going`.
pub async fn run_plan(plan: &Plan, options: &Test) -> Result<()> {
    let mut checks = Lane::start(plan.checks, options.keep_going)?;
    let servers = async {
        let results = run(plan.servers, Context::new(options, false)).await?;
        step("Waiting for the background checks");
        Ok(results)
    };
    let (servers, checks) = tokio::try_join!(servers, checks.finish(options.keep_going))?;
    let last = run(plan.last, Context::new(options, plan.has_package())).await?;
    summarise([checks, servers, last].into_iter().fold(Results::default(), Results::with))
}

impl Lane {
    fn start(parts: &[Part], keep_going: bool) -> Result<Self> {
        let logs = folder().join("lanes");
        fs::create_dir_all(&logs)?;
        let log = logs.join("checks.log");
        let names: Vec<_> = parts.iter().map(|part| part.name()).collect();
        step(format!("Running in the background, with output in {}: {}", log.display(), names.join(" ")));
        let file = File::create(&log)?;
        let mut command = Command::new("nice");
        command.args(["-n", "15"]).arg(std::env::current_exe()?).arg("test").args(names);
        if keep_going {
            command.arg("--keep-going");
        }
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Self { process: Running::start(&mut command, Signal::SIGINT)?, log, began: Instant::now() })
    }

    /// Waits for the process. Fails if a part has failed; with `keep_going`, adds the failure to the results instead.
    async fn finish(&mut self, keep_going: bool) -> Result<Results> {
        let status = self.process.wait().await?;
        let log = fs::read_to_string(&self.log).with_context(|| format!("{} cannot be read", self.log.display()))?;
        let mut results = Results::default();
        let outcome = if status.success() {
            "passed"
        } else {
            eprintln!("{}\n", tail(&log, 200));
            if !keep_going {
                bail!("a background check failed: its output is above");
            }
            results.failures.push("a background check".to_owned());
            "FAILED"
        };
        step(format!("The background checks have {outcome} after {}", Short(self.began.elapsed())));
        let is_result = |line: &&str| line.contains(" passed in ") || line.contains(" FAILED in ");
        results.lines.extend(log.lines().filter(is_result).map(str::to_owned));
        Ok(results)
    }
}
