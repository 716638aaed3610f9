//! `cargo xtask test`: runs the parts for each push, all parts, or chosen parts.
mod lanes;
mod parts;
mod run;

use self::{
    parts::Context,
    run::{run, summarise},
};
use anyhow::Result;
use std::time::Duration;
use xtask::{
    cli::{Part, Test},
    durations::{Durations, Short},
};

/// Runs the parts. Stops at the first failure, unless `--keep-going`.
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
    summarise(run(&parts, Context::new(options, false)).await?)
}

/// Lists the parts to run, with their last durations.
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
