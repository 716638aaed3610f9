//! The one way in which cargo builds for this machine.
use crate::{openssl::OpenSsl, place::root};
use std::process::Command;

/// The packages that commands and tests select, always all of them: the selection decides which features dependencies
/// get, and one that differs compiles them again.
pub const PACKAGES: [&str; 6] = ["functions", "shared", "migrations", "testing", "xtask", "devtools"];

/// cargo in the project's folder, without a selection of packages.
pub fn plain_cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// `cargo SUBCOMMAND` for [`PACKAGES`], in the project's folder. The caller adds which targets.
pub fn cargo(subcommand: &str) -> Command {
    cargo_with(subcommand, OpenSsl::find())
}

/// As [`cargo`], with an OpenSSL that has been looked for already.
pub fn cargo_with(subcommand: &str, openssl: OpenSsl) -> Command {
    let mut command = plain_cargo();
    command.arg(subcommand);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command.args(openssl.cargo_flags());
    command
}

/// `cargo SUBCOMMAND` for the whole workspace: with the migrate function, which brings AWS's SDK, and the benchmarks.
pub fn cargo_everything(subcommand: &str) -> Command {
    let mut command = cargo(subcommand);
    command.args(["--package", "migrate", "--package", "bench", "--features", "devtools/bench"]);
    command
}

/// The API's functions and its jobs, as their programs are called.
pub fn functions() -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("functions/src/bin"))? {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}
