//! Runs parts one after the other.
use super::parts::{self, Context};
use crate::servers::services::Services;
use anyhow::{Error, Result, bail};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use std::time::{Duration, Instant};
use xtask::{
    cli::Part,
    durations::{Durations, Short},
    step,
};

/// The results of parts.
#[derive(Default)]
pub struct Results {
    /// One line per part.
    pub lines: Vec<String>,
    /// Names of failed parts.
    pub failures: Vec<String>,
}

impl Results {
    /// Adds other results.
    pub fn with(mut self, others: Self) -> Self {
        self.lines.extend(others.lines);
        self.failures.extend(others.failures);
        self
    }
}

/// Runs parts one after the other. Returns the first failure as an error, unless `keep_going`.
pub async fn run(parts: &[Part], mut context: Context<'_>) -> Result<Results> {
    let mut results = Results::default();
    for (index, part) in parts.iter().enumerate() {
        let name = part.name();
        let definition = parts::definition(*part);
        if definition.needs_services && context.services.is_none() {
            context.services = Some(Services::start().await?);
        }
        if *part == Part::Versions {
            // `versions` starts its own servers in the same folder.
            context.services = None;
        }
        step(format!("Testing: {name} ({} of {})", index + 1, parts.len()));
        let (began, cpu_before) = (Instant::now(), children_cpu());
        let mut result = definition.run(&context).await;
        if let (Ok(()), Some(services)) = (&result, &context.services) {
            result = services.check_logs();
        }
        let took = began.elapsed();
        let figures = format!("{} ({} of CPU)", Short(took), Short(children_cpu().saturating_sub(cpu_before)));
        match result {
            Ok(()) => {
                results.lines.push(format!("{name:14} passed in {figures}"));
                if context.filter.is_none() {
                    Durations::record(&name, took);
                }
            }
            Err(error) => {
                let error = failed(&name, context.filter, error);
                if !context.keep_going {
                    return Err(error);
                }
                eprintln!("error: {error:#}");
                results.lines.push(format!("{name:14} FAILED in {figures}"));
                results.failures.push(name);
            }
        }
    }
    Ok(results)
}

/// Prints the results, and fails if a part has failed.
pub fn summarise(results: Results) -> Result<()> {
    let Results { lines, failures } = results;
    println!("\n{}", lines.join("\n"));
    if !failures.is_empty() {
        bail!("{} of {} parts failed: {}", failures.len(), lines.len(), failures.join(", "));
    }
    Ok(())
}

/// Returns the CPU time of our child processes that have ended.
fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    let microseconds = usage.map_or(0, |usage| (usage.user_time() + usage.system_time()).num_microseconds());
    Duration::from_micros(microseconds.unsigned_abs())
}

/// Adds the command that runs the part alone to a part's error.
fn failed(name: &str, filter: Option<&str>, error: Error) -> Error {
    let filter = filter.map(|filter| format!(" --filter {filter}")).unwrap_or_default();
    error.context(format!("the part '{name}' failed; it runs alone by 'cargo xtask test {name}{filter}'"))
}
