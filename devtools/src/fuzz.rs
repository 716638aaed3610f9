//! `cargo xtask fuzz`: a million events that nobody should send.
use crate::{system::process::run_command, system::tools::cargo, test::Services};
use anyhow::Result;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many cases `--quick` and `cargo xtask test fuzz` try.
const QUICK_CASES: u64 = 20_000;

/// What `cargo xtask fuzz` is told.
#[derive(clap::Args)]
pub struct Options {
    /// How many cases to try
    #[arg(long, default_value_t = 1_000_000, conflicts_with = "quick")]
    cases: u64,
    /// Try 20,000 only
    #[arg(long)]
    quick: bool,
    /// Makes the same cases again; by default a new number each time, which is printed
    #[arg(long)]
    seed: Option<u64>,
}

/// Starts the servers and tries the cases.
pub async fn fuzz(options: &Options) -> Result<()> {
    let services = Services::start().await?;
    try_cases(&services, if options.quick { QUICK_CASES } else { options.cases }, options.seed).await
}

/// Tries a few cases, for a part of the tests.
pub async fn quick(services: &Services) -> Result<()> {
    try_cases(services, QUICK_CASES, None).await
}

async fn try_cases(services: &Services, cases: u64, seed: Option<u64>) -> Result<()> {
    let seed = match seed {
        Some(seed) => seed,
        None => u64::from(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
    };
    let mut command = cargo(&["test", "--locked", "--package", "functions", "--test", "api", "fuzz::"]);
    command.args(["--", "--ignored", "--nocapture"]);
    command.env("FUZZ_CASES", cases.to_string()).env("FUZZ_SEED", seed.to_string());
    run_command(services.name_to(&mut command)).await?;
    services.check_logs()
}
