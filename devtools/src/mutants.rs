//! `cargo xtask mutants`: checks whether tests fail if the session check or the task statements are changed.
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

/// Pinned, because the surviving mutants depend on the version.
const CARGO_MUTANTS: &str = "cargo-mutants@27.1.0";

/// Timeout of the tests on a mutant, in seconds. Some never end; a timeout counts as caught.
const TIMEOUT_S: &str = "600";

/// cargo-mutants' exit code if mutants survive (mutants.rs/exit-codes.html).
const SURVIVORS: i32 = 2;

/// Mutates a copy of the code, one place at a time. The first round runs the unit tests, which take seconds, on each
/// mutant. The second runs the API's tests on the survivors. Prints the mutants that survive both, and fails if there
/// are any. target/mutants.out has the details of both rounds.
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
    // On unmutated code, cargo-mutants runs only the mutated package's tests. If the API's tests failed there, every
    // mutant would count as caught.
    step("The API's tests on the code as it is");
    run_command(services.pass_to(&mut cargo(&["test", "--locked", "--package", "functions"]))).await?;
    // Else the second round would skip mutants that an earlier run has caught.
    let _ = std::fs::remove_dir_all(target.join("mutants.out"));
    step("The unit tests on each mutant");
    let mut round = cargo_mutants(&[&common[..], &["--test-package", "shared"]].concat());
    let status = Running::start(&mut round, Signal::SIGTERM)?.wait().await?;
    if !matches!(status.code(), Some(0 | SURVIVORS)) {
        bail!("the unit tests cannot be run on the mutants ({status})");
    }
    step("The API's tests on each that the unit tests let pass");
    let mut round = cargo_mutants(&[&common[..], &["--iterate", "--test-package", "functions"]].concat());
    run_command(services.pass_to(&mut round)).await
}
