//! All parts, those that do not disturb each other side by side.
//!
//! What starts servers and waits for them has the processors first. What compiles or reads runs beside it in a process of its own,
//! at a lower priority, its output in a file. Parts that need what the other lane makes come last.
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

/// What is run, and in which lane.
pub struct Plan {
    /// With servers, in the foreground, in this order.
    servers: &'static [Part],
    /// Beside them.
    checks: &'static [Part],
    /// After both: on what `Package` has made, and what would make the others compile again.
    last: &'static [Part],
}

/// What a contributor runs before each push: the code, the API, the migrations, the contract and the template, without what
/// needs an AWS SDK, a release build, a browser, or minutes.
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

/// Every part. `ClippyAll` looks at what `Clippy` looks at, and more.
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
    /// All parts, as they come one after the other.
    pub fn parts(&self) -> Vec<Part> {
        [self.servers, self.checks, self.last].concat()
    }

    /// Whether the part `Package` has been run before the last parts.
    fn packages(&self) -> bool {
        self.checks.contains(&Part::Package)
    }
}

/// Parts in a process of their own.
pub struct Lane {
    process: Running,
    log: PathBuf,
    began: Instant,
}

/// Runs the parts of a plan.
pub async fn run_plan(plan: &Plan, options: &Test) -> Result<()> {
    let mut checks = Lane::start("checks", plan.checks, options.keep_going)?;
    let servers = run(plan.servers, Context::new(options, false));
    tokio::pin!(servers);
    let mut results = Results::default();
    let mut is_checked = false;
    // The first failure ends everything, in either lane.
    let of_servers = loop {
        tokio::select! {
            servers = &mut servers => break servers?,
            ended = checks.finish(), if !is_checked => {
                is_checked = true;
                results.add(ended, options.keep_going)?;
            }
        }
    };
    results.lines.extend(of_servers.lines);
    results.failures.extend(of_servers.failures);
    if !is_checked {
        step("Waiting for the checks beside");
        let ended = checks.finish().await;
        results.add(ended, options.keep_going)?;
    }
    let last = run(plan.last, Context::new(options, plan.packages())).await?;
    results.lines.extend(last.lines);
    results.failures.extend(last.failures);
    summarise(Ok(results))
}

impl Lane {
    fn start(name: &str, parts: &[Part], keep_going: bool) -> Result<Self> {
        let logs = folder().join("lanes");
        fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{name}.log"));
        let names: Vec<_> = parts.iter().map(|part| part.name()).collect();
        step(format!("Beside the others, with its output in {}: {}", log.display(), names.join(" ")));
        let file = File::create(&log)?;
        let mut command = Command::new("nice");
        command.args(["-n", "15"]).arg(std::env::current_exe()?).arg("test").args(names);
        if keep_going {
            command.arg("--keep-going");
        }
        command.stdout(file.try_clone()?).stderr(file);
        Ok(Self { process: Running::start(&mut command, Signal::SIGINT)?, log, began: Instant::now() })
    }

    /// Waits for the end; the lines of its summary, and whether all has passed.
    async fn finish(&mut self) -> Result<(Vec<String>, bool)> {
        let status = self.process.wait().await?;
        let log = fs::read_to_string(&self.log).with_context(|| format!("{} cannot be read", self.log.display()))?;
        if !status.success() {
            eprintln!("{}\n", tail(&log, 200));
        }
        let took = self.began.elapsed();
        step(format!(
            "The checks beside have {} after {}",
            if status.success() { "passed" } else { "FAILED" },
            Short(took)
        ));
        let is_result = |line: &&str| line.contains(" passed in ") || line.contains(" FAILED in ");
        Ok((log.lines().filter(is_result).map(str::to_owned).collect(), status.success()))
    }
}

impl Results {
    fn add(&mut self, lane: Result<(Vec<String>, bool)>, keep_going: bool) -> Result<()> {
        let (lines, has_passed) = lane?;
        self.lines.extend(lines);
        if !has_passed {
            if !keep_going {
                bail!("a check beside the tests failed: its output is above");
            }
            self.failures.push("a check beside the tests".to_owned());
        }
        Ok(())
    }
}
