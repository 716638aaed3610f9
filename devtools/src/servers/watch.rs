//! `cargo lambda watch`.
use crate::system::{
    process::{Running, run_command},
    tools::cargo,
};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::{collections::BTreeMap, path::Path, process::Stdio};
use tokio::process::Command;
use xtask::{openssl::OpenSsl, place::root, step};

/// Builds the functions and starts `cargo lambda watch` on a port. `instances` limits the processes of each function; their log
/// lines go to `output`.
pub async fn watch(
    cargo_lambda: &Path,
    port: u16,
    instances: usize,
    settings: &BTreeMap<String, String>,
    output: Stdio,
) -> Result<Running> {
    step("Building the functions for cargo lambda watch, which compiles some dependencies again");
    let flags = OpenSsl::find().cargo_flags();
    // As it will: of this package alone. It would do so itself, within the first call of each function.
    run_command(cargo(&["build", "--package", "functions", "--bins"]).args(flags)).await?;
    Running::start(
        Command::new(cargo_lambda)
            // Behind the gateway, which answers preflight requests as API Gateway does.
            .args(["lambda", "watch", "-A", "127.0.0.1", "-P", &port.to_string(), "--disable-cors"])
            .args(["--concurrency", &instances.to_string()])
            .args(flags)
            .current_dir(root())
            .stdout(output)
            .envs(settings)
            // Errors and warnings of a rebuild, and no line for each instance that starts.
            .env("CARGO_TERM_QUIET", "true")
            .env("RUST_LOG", std::env::var_os("RUST_LOG").unwrap_or_else(|| "warn".into()))
            // The owner's rights are not for the functions.
            .env_remove("DATABASE_URL_UNPOOLED"),
        // Asked to end, it reports an error for each of the functions; they hold nothing that is not in the database.
        Signal::SIGKILL,
    )
}
