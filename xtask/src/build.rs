//! cargo commands for builds that run on this machine. All of them select the same packages and features.
use crate::{openssl::OpenSsl, place::root};
use std::process::Command;

/// The packages that every command and test selects. The selection decides the features of the dependencies, so a
/// different one would recompile them.
pub const PACKAGES: [&str; 6] = ["functions", "shared", "migrations", "testing", "xtask", "devtools"];

/// `cargo` in the project's root folder, without a package selection.
pub fn plain_cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// `cargo SUBCOMMAND` for [`PACKAGES`], in the project's root folder. The caller adds the targets.
pub fn cargo(subcommand: &str) -> Command {
    cargo_with(subcommand, OpenSsl::find())
}

/// Like [`cargo`], for an OpenSSL that was already found.
pub fn cargo_with(subcommand: &str, openssl: OpenSsl) -> Command {
    let mut command = plain_cargo();
    command.arg(subcommand);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command.args(openssl.cargo_flags());
    command
}

/// `cargo SUBCOMMAND` for the whole workspace, including the migrate function (with the AWS SDK) and the benchmarks.
pub fn cargo_everything(subcommand: &str) -> Command {
    let mut command = cargo(subcommand);
    command.args(["--package", "migrate", "--package", "bench", "--features", "devtools/bench"]);
    command
}

/// Returns the names of the API's binaries: its endpoint functions and its scheduled jobs.
pub fn functions() -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("functions/src/bin"))? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}
