//! `cargo xtask test`: what a contributor runs before each push; everything; or parts of it.
mod lanes;
mod parts;

use self::parts::Context;
use crate::servers::services::Services;
use anyhow::{Error, Result, bail};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use std::time::{Duration, Instant};
use xtask::{
    cli::{Part, Test},
    durations::{Durations, Short},
    step,
};

/// Runs the parts, and ends with the first that fails unless it is told to go on.
pub async fn test(options: &Test) -> Result<()> {
    let durations = Durations::read();
    let plan = if options.all { &lanes::ALL } else { &lanes::BEFORE_A_PUSH };
    let parts = if options.parts.is_empty() { plan.parts() } else { options.parts.clone() };
    if parts.len() > 1 {
        println!("{}", list(&durations, &parts));
    }
    if options.parts.is_empty() && !options.one_by_one {
        return lanes::run_plan(plan, options).await;
    }
    summarise(run(&parts, Context::new(options, false)).await)
}

/// What is going to be run, and how long that took the last time.
fn list(durations: &Durations, parts: &[Part]) -> String {
    let known = |part: &Part| durations.get(&part.name());
    let line = |part: &Part| {
        let last = known(part).map(|last| format!("{} the last time", Short(last)));
        format!("{:14} {}", part.name(), last.as_deref().unwrap_or("not run here yet"))
    };
    let lines: Vec<_> = parts.iter().map(line).collect();
    let sum: Duration = parts.iter().filter_map(known).sum();
    format!("{}\n{:14} {}, as far as it is known\n", lines.join("\n"), "together", Short(sum))
}

/// How parts went.
#[derive(Default)]
struct Results {
    lines: Vec<String>,
    failures: Vec<String>,
}

/// Runs parts one after the other. An error where one fails and the others are not wanted then.
async fn run(parts: &[Part], mut context: Context<'_>) -> Result<Results> {
    let mut results = Results::default();
    for (index, part) in parts.iter().enumerate() {
        let name = part.name();
        let definition = parts::definition(*part);
        if definition.needs_services && context.services.is_none() {
            context.services = Some(Services::start().await?);
        }
        if *part == Part::Versions {
            // On the same folders, one after the other.
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
                    Durations::read().record(&name, took);
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

/// Prints how the parts went, and fails where one has.
fn summarise(results: Result<Results>) -> Result<()> {
    let Results { lines, failures } = results?;
    println!("\n{}", lines.join("\n"));
    if !failures.is_empty() {
        bail!("{} of {} parts failed: {}", failures.len(), lines.len(), failures.join(", "));
    }
    Ok(())
}

/// The time that processes which we started and which have ended have had of a CPU.
fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN);
    let microseconds = usage.map_or(0, |usage| (usage.user_time() + usage.system_time()).num_microseconds());
    Duration::from_micros(microseconds.unsigned_abs())
}

/// The error of a part, with the command that runs it alone.
fn failed(name: &str, filter: Option<&str>, error: Error) -> Error {
    let filter = filter.map(|filter| format!(" --filter {filter}")).unwrap_or_default();
    error.context(format!("the part '{name}' failed; it runs alone by 'cargo xtask test {name}{filter}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use xtask::place::root;

    fn names(parts: impl IntoIterator<Item = Part>) -> BTreeSet<String> {
        parts.into_iter().map(Part::name).collect()
    }

    #[test]
    fn all_is_every_part_once() {
        let all = lanes::ALL.parts();
        let every = Part::value_variants().iter().copied().filter(|part| *part != Part::Clippy);
        assert_eq!(names(all.iter().copied()), names(every), "devtools/src/test/lanes.rs");
        assert_eq!(all.len(), names(all.iter().copied()).len(), "a part is in two lanes");
    }

    #[test]
    fn github_runs_every_part() {
        let file = ".github/workflows/test.yml";
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let workflow: Value = serde_saphyr::from_str(&text).unwrap();
        let jobs = workflow["jobs"]["test"]["strategy"]["matrix"]["include"].as_array().unwrap();
        let parts = jobs.iter().flat_map(|job| job["parts"].as_str().unwrap().split(' ')).map(str::to_owned);
        assert_eq!(parts.collect::<BTreeSet<_>>(), names(Part::value_variants().iter().copied()), "{file}");
    }
}
