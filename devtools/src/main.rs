//! The developer's commands: `cargo xtask dev`, `deploy`, `test`, `bench`, `fuzz`, `soak`, `mutants`, `migrate` and `sizes`.
#[cfg(target_os = "linux")]
mod bench;
mod checks;
mod deploy;
mod dev;
mod faults;
mod fuzz;
mod migrate;
mod mutants;
mod servers;
mod sizes;
mod system;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{filter::LevelFilter, fmt};

/// The developer's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the API on this machine, on a PostgreSQL of its own or the one that DATABASE_URL and DATABASE_URL_UNPOOLED name
    Dev(dev::Options),
    /// Build the functions, deploy them to AWS with the SAM CLI, and call the deployed API
    Deploy(deploy::Options),
    /// Run the tests, all or by part
    Test(test::Options),
    /// Measure the API beside programs in Python, Node.js and Rust that do the same, and beside the least that a function can do
    /// (on Linux)
    #[cfg(target_os = "linux")]
    Bench(bench::Options),
    /// Load many processes with many clients while servers fail, and count what became of each write
    Soak(faults::soak::Options),
    /// Try a million events that nobody should send: no 5xx, no panic
    Fuzz(fuzz::Options),
    /// Change the session check and the tasks' statements, one place at a time, and list what no test notices
    Mutants(mutants::Options),
    /// Build the functions for release and print size, GLIBC version and shared libraries of each
    Sizes,
    /// Bring a database's tables up to date, or back
    #[command(subcommand)]
    Migrate(migrate::Action),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // Warnings of the database's, such as what a down migration keeps.
    fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).without_time().with_target(false).init();
    // What was started ends when the future that holds it is dropped: at its end, or here.
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
        #[cfg(target_os = "linux")]
        Command::Bench(options) => bench::bench(options).await,
        Command::Soak(options) => faults::soak::soak(options).await,
        Command::Fuzz(options) => fuzz::fuzz(options).await,
        Command::Mutants(options) => mutants::mutants(options).await,
        Command::Sizes => sizes::sizes().await,
        Command::Migrate(action) => migrate::migrate(action).await,
    }
}

/// Waits for a signal that asks us to end, and gives the exit code that shells expect after it.
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
    system::process::step("Stopping");
    code
}
