//! `cargo xtask test`: runs the parts for each push, all parts, or chosen parts.
mod arm64;
mod lanes;
mod parts;
mod run;
mod sam_local;

use self::{
    parts::Context,
    run::{run, summarise},
};
use anyhow::{Result, ensure};
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
    let can_prepare = |part: &Part| [Part::Faults, Part::Soak].contains(part);
    ensure!(!options.prepared || parts.iter().any(can_prepare), "--prepared is for the parts faults and soak");
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

    /// The parts that a test or CI expects: all but those that run only if they are named.
    fn usual() -> impl Iterator<Item = Part> {
        Part::value_variants().iter().copied().filter(|part| !lanes::ONLY_IF_NAMED.contains(part))
    }

    fn names(parts: impl IntoIterator<Item = Part>) -> BTreeSet<String> {
        parts.into_iter().map(Part::name).collect()
    }

    #[test]
    fn all_is_every_part_once() {
        let all = lanes::ALL.parts();
        let every = usual().filter(|part| *part != Part::Clippy);
        assert_eq!(names(all.iter().copied()), names(every), "devtools/src/test/lanes.rs");
        assert_eq!(all.len(), names(all.iter().copied()).len(), "a part is in two lanes");
    }

    fn workflow(name: &str) -> Value {
        let text = std::fs::read_to_string(root().join(".github/workflows").join(name)).unwrap();
        serde_saphyr::from_str(&text).unwrap()
    }

    #[test]
    fn no_job_that_may_act_as_the_repository_compiles_or_restores_a_cache() {
        let mut privileged = 0;
        for name in ["build.yml", "deploy.yml", "preview.yml", "test.yml", "supply-chain.yml"] {
            let workflow = workflow(name);
            for (job_name, job) in workflow["jobs"].as_object().unwrap() {
                if job["permissions"]["id-token"].is_null() && name != "build.yml" {
                    continue;
                }
                privileged += 1;
                let steps = job["steps"].to_string();
                assert!(!steps.contains("actions/cache"), "{name}: {job_name} restores a cache");
                if name != "build.yml" {
                    for word in ["cargo ", "rustup", "sam build", "npm "] {
                        assert!(!steps.contains(word), "{name}: {job_name} runs {word}");
                    }
                }
                if steps.contains("pip install") {
                    assert!(steps.contains("--require-hashes --no-deps --only-binary :all:"), "{name}: {job_name}");
                }
            }
        }
        assert!(privileged >= 2, "the jobs build and deploy");
        assert_eq!(workflow("build.yml")["jobs"]["build"]["permissions"], serde_json::json!({ "contents": "read" }));
    }

    #[test]
    fn the_workflows_use_the_image_that_dependabot_watches() {
        let text = std::fs::read_to_string(root().join(".github/image/Dockerfile")).unwrap();
        let image = text.lines().find_map(|line| line.strip_prefix("FROM ")).unwrap();
        assert!(image.contains("@sha256:"), "{image}");
        for (file, job) in
            [("build.yml", "build"), ("deploy.yml", "deploy"), ("preview.yml", "deploy"), ("preview.yml", "remove")]
        {
            assert_eq!(workflow(file)["jobs"][job]["container"], image, "{file}: {job}");
        }
    }

    #[test]
    fn the_workflows_install_the_tools_that_the_tests_use() {
        let pinned = |name: &str| std::fs::read_to_string(root().join(".github/pip").join(name)).unwrap();
        let tools = std::fs::read_to_string(root().join("devtools/src/system/tools.rs")).unwrap();
        let sam = std::fs::read_to_string(root().join("devtools/src/checks/sam.rs")).unwrap();
        for (file, source, name) in [("sam.txt", &sam, "aws-sam-cli=="), ("cargo-lambda.txt", &tools, "cargo-lambda==")]
        {
            let rest = source.split(name).nth(1).unwrap();
            let version = rest.split('"').next().unwrap();
            assert!(pinned(file).contains(&format!("\n{name}{version} \\\n")), "{file} lacks {name}{version}");
        }
    }

    #[test]
    fn github_runs_every_part() {
        let file = ".github/workflows/test.yml";
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let workflow: Value = serde_saphyr::from_str(&text).unwrap();
        let jobs = workflow["jobs"]["test"]["strategy"]["matrix"]["include"].as_array().unwrap();
        let parts = jobs.iter().flat_map(|job| job["parts"].as_str().unwrap().split(' ')).map(str::to_owned);
        assert_eq!(parts.collect::<BTreeSet<_>>(), names(usual()), "{file}");
    }
}
