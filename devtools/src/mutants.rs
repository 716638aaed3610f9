//! `cargo xtask mutants`: whether a test notices when the session check or a task's statement is changed.
use crate::{
    servers::services::Services,
    system::process::{Running, run_command},
    system::tools::{cargo, from_crates_io},
};
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use tokio::process::Command;
use xtask::{
    cli::Mutants,
    place::{root, target},
    step,
};

/// The version that the list of survivors is of.
const CARGO_MUTANTS: &str = "cargo-mutants@27.1.0";

/// How long the tests may take on a mutant before it counts as caught, in seconds: some never end.
const TIMEOUT_S: &str = "600";

/// cargo-mutants' exit code when some survive (mutants.rs/exit-codes.html).
const SURVIVORS: i32 = 2;

/// Changes the code in a copy, one place at a time, and runs tests on each change: first the unit tests, which take seconds, then
/// the API's on those that the unit tests let pass. What both let pass survives. Prints the survivors and fails when there are
/// any; target/mutants.out has the details of both rounds.
pub async fn mutants(options: &Mutants) -> Result<()> {
    let program = from_crates_io(CARGO_MUTANTS).await?;
    let cargo_mutants = |more: &[&str]| {
        let mut command = Command::new(&program);
        command.args(["mutants", "--no-shuffle", "--package", "shared"]).current_dir(root());
        for file in &options.files {
            command.args(["--file", file]);
        }
        if let Some(only) = &options.only {
            command.args(["--re", only]);
        }
        command.args(more);
        command
    };
    if options.list {
        return run_command(&mut cargo_mutants(&["--list"])).await;
    }
    let target = target();
    let output = target.to_string_lossy();
    let common = ["--cargo-arg=--locked", "--timeout", TIMEOUT_S, "--output", &*output];
    let services = Services::start().await?;
    // cargo-mutants tries only the mutated package's own tests on what is not mutated. Tests that fail anyway would catch all.
    step("The API's tests on the code as it is");
    run_command(services.name_to(&mut cargo(&["test", "--locked", "--package", "functions"]))).await?;
    // Else the second round would pass over what an earlier run has caught.
    let _ = std::fs::remove_dir_all(target.join("mutants.out"));
    step("The unit tests on each mutant");
    let mut round = cargo_mutants(&[&common[..], &["--test-package", "shared"]].concat());
    let status = Running::start(&mut round, Signal::SIGTERM)?.wait().await?;
    if !matches!(status.code(), Some(0 | SURVIVORS)) {
        bail!("the unit tests cannot be run on the mutants ({status})");
    }
    step("The API's tests on each that the unit tests let pass");
    let mut round = cargo_mutants(&[&common[..], &["--iterate", "--test-package", "functions"]].concat());
    run_command(services.name_to(&mut round)).await
}
