//! `cargo xtask fuzz`: a million invalid events.
use crate::{servers::services::Services, system::build::cargo_test, system::process::run_command};
use anyhow::Result;
use std::time::{SystemTime, UNIX_EPOCH};
use xtask::cli::Fuzz;

/// Number of cases for `--quick` and `cargo xtask test fuzz`.
const QUICK_CASES: u64 = 20_000;

/// Starts the servers and runs the cases.
pub async fn fuzz(options: &Fuzz) -> Result<()> {
    let services = Services::start().await?;
    run_cases(&services, if options.quick { QUICK_CASES } else { options.cases }, options.seed).await
}

/// Runs the quick cases, for `cargo xtask test fuzz`.
pub async fn quick(services: &Services) -> Result<()> {
    run_cases(services, QUICK_CASES, None).await
}

async fn run_cases(services: &Services, cases: u64, seed: Option<u64>) -> Result<()> {
    let seed = match seed {
        Some(seed) => seed,
        None => u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
    };
    let mut command = cargo_test(&["--test", "api", "fuzz::"]);
    command.args(["--", "--ignored", "--nocapture"]);
    command.env("FUZZ_CASES", cases.to_string()).env("FUZZ_SEED", seed.to_string());
    run_command(services.pass_to(&mut command)).await?;
    services.check_logs()
}
