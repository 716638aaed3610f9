//! Checks dependencies: cargo-deny with the rules of deny.toml, cargo-machete for unused ones, the lists of components, and
//! the workflows with zizmor.
use crate::{
    checks::sbom,
    system::process::run_command,
    system::tools::{from_crates_io, from_pypi},
};
use anyhow::{Result, bail};
use tokio::process::Command;
use xtask::{place::root, step};

/// The versions with which the project passes.
const CARGO_DENY: &str = "cargo-deny@0.20.2";
const CARGO_MACHETE: &str = "cargo-machete@0.9.2";
const ZIZMOR: &str = "zizmor==1.32.0";

/// The advisory database: cargo-deny's default.
const ADVISORIES: &str = "https://github.com/rustsec/advisory-db";

/// Checks licences, versions, sources and advisories, that every dependency is used, that the lists of components are complete,
/// and the workflows.
pub async fn check() -> Result<()> {
    let deny = from_crates_io(CARGO_DENY).await?;
    let cargo_deny = |checks: &[&str]| {
        let mut command = Command::new(&deny);
        // An exception that matches nothing any more is an error too.
        command.args(["--locked", "check", "--hide-inclusion-graph", "--deny", "unmatched-skip"]).args(checks);
        command.current_dir(root());
        command
    };
    step(format!("{CARGO_DENY}: licences, bans, sources"));
    run_command(&mut cargo_deny(&["licenses", "bans", "sources"])).await?;
    if can_reach_advisories().await {
        step(format!("{CARGO_DENY}: advisories"));
        run_command(&mut cargo_deny(&["advisories"])).await?;
    } else if std::env::var_os("GITHUB_ACTIONS").is_some() {
        bail!("{ADVISORIES} cannot be reached, and in CI it has to be");
    } else {
        println!(
            "NOT CHECKED: advisories, because {ADVISORIES} cannot be reached from here. GitHub's run of the tests checks them."
        );
    }
    step(CARGO_MACHETE);
    run_command(Command::new(from_crates_io(CARGO_MACHETE).await?).current_dir(root())).await?;
    sbom::check().await?;
    step(format!("{ZIZMOR}: the workflows"));
    let zizmor = from_pypi("zizmor", &[ZIZMOR]).await?.join("zizmor");
    // Every finding is an error. An exception is a comment in the workflow, with its reason.
    run_command(Command::new(zizmor).args(["--offline", "--no-progress", ".github"]).current_dir(root())).await
}

/// Whether git can read the advisory database.
async fn can_reach_advisories() -> bool {
    let mut git = Command::new("git");
    git.args(["ls-remote", "--exit-code", "--heads", ADVISORIES, "main"]).env("GIT_TERMINAL_PROMPT", "0");
    git.output().await.is_ok_and(|output| output.status.success())
}
