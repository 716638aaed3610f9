//! Starts `cargo lambda watch`.
use crate::system::{
    process::{Running, run_command},
    tools::cargo,
};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, path::Path, process::Stdio};
use tokio::process::Command;
use xtask::{openssl::OpenSsl, place::root, step};

/// Builds the functions and starts `cargo lambda watch` on `port`, with at most `instances` processes per function.
/// Their log goes to `output`.
pub async fn watch(
    cargo_lambda: &Path,
    port: u16,
    instances: usize,
    settings: &BTreeMap<String, String>,
    output: Stdio,
) -> Result<Running> {
    step("Building the functions for cargo lambda watch, which compiles some dependencies again");
    let flags = OpenSsl::find().cargo_flags();
    // Builds only this package, like `cargo lambda watch` does. Else it would build within the first call of each
    // function.
    run_command(cargo(&["build", "--package", "functions", "--bins"]).args(flags)).await?;
    Running::start(
        Command::new(cargo_lambda)
            // Our gateway answers preflight requests.
            .args(["lambda", "watch", "-A", "127.0.0.1", "-P", &port.to_string(), "--disable-cors"])
            .args(["--concurrency", &instances.to_string()])
            .args(flags)
            .current_dir(root())
            .stdout(output)
            .envs(settings)
            // Logs errors and warnings of a rebuild, but no line per started instance.
            .env("CARGO_TERM_QUIET", "true")
            .env("RUST_LOG", std::env::var_os("RUST_LOG").unwrap_or_else(|| "warn".into()))
            // The functions must not have the owner's rights.
            .env_remove("DATABASE_URL_UNPOOLED"),
        // After SIGTERM it would log an error for each function. The functions have no state outside the database.
        Signal::SIGKILL,
    )
}
