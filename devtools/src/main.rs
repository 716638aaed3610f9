//! The developer commands. The package `xtask` (`cargo xtask`) compiles and starts this program.
#[cfg(feature = "bench")]
mod bench;
mod checks;
mod deploy;
mod dev;
mod faults;
mod fuzz;
mod generate;
mod migrate;
mod mutants;
mod servers;
mod sizes;
mod system;
mod test;

use anyhow::Result;
use clap::Parser as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{filter::LevelFilter, fmt};
use xtask::{
    cli::{Cli, Command},
    step,
};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // PostgreSQL's warnings, such as a down migration's notice of what it keeps.
    fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).without_time().with_target(false).init();
    // Dropping the future stops every process that it started, after an interruption too.
    let result = tokio::select! {
        result = run(&cli.command) => result,
        code = interrupted() => return ExitCode::from(code),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: &Command) -> Result<()> {
    match command {
        Command::Dev(options) => dev::dev(options).await,
        Command::Deploy(options) => deploy::deploy(options).await,
        Command::Test(options) => test::test(options).await,
        #[cfg(feature = "bench")]
        Command::Bench(options) => bench::bench(options).await,
        #[cfg(not(feature = "bench"))]
        Command::Bench(_) => anyhow::bail!("this program was built without the benchmarks: run 'cargo xtask bench'"),
        Command::Psql(_) | Command::Logs(_) => anyhow::bail!("only 'cargo xtask' itself runs this command"),
        Command::Soak(options) => faults::soak::soak(options).await,
        Command::Fuzz(options) => fuzz::fuzz(options).await,
        Command::Mutants(options) => mutants::mutants(options).await,
        Command::Generate(options) => generate::generate(options),
        Command::Sbom(options) => checks::sbom::sbom(options).await,
        Command::Sizes => sizes::sizes().await,
        Command::Migrate(action) => migrate::migrate(action).await,
    }
}

/// Waits for SIGINT, SIGTERM or SIGHUP, and returns the exit code that shells expect after it.
async fn interrupted() -> u8 {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    let code = tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
        _ = hangup.recv() => 129,
    };
    step("Stopping");
    code
}
