//! The front end in examples/nextjs, for `cargo xtask dev --front-end` and the part `front-end` of the tests.
use crate::system::{
    process::Running,
    tools::{from_npm, lock, node},
};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;
use xtask::place::{root, target};

/// Timeout of the server's start, in seconds.
const START_TIMEOUT_S: u64 = 60;

/// What a copy leaves out: packages, builds, and the developer's own settings.
const NOT_COPIED: [&str; 5] = ["node_modules", ".next", ".env.local", "next-env.d.ts", "tsconfig.tsbuildinfo"];

/// The front end with its packages.
pub struct FrontEnd {
    folder: PathBuf,
    node: PathBuf,
}

/// Installs the packages of examples/nextjs there, so that a change to it is shown at once.
pub async fn install() -> Result<FrontEnd> {
    let node = node("node")?;
    let folder = root().join("examples/nextjs");
    let _lock = lock("front-end")?;
    from_npm("the front end", &folder).await?;
    Ok(FrontEnd { folder, node })
}

/// Copies examples/nextjs and its browser test to target/, with their packages. Returns the folder: the tests' build does
/// not disturb a running `next dev`.
pub async fn install_copy() -> Result<PathBuf> {
    let folder = target().join("tools/front-end");
    let _lock = lock("front-end")?;
    for (source, name) in [("examples/nextjs", "example"), ("devtools/front-end", "test")] {
        let copy = folder.join(name);
        fs::create_dir_all(&copy)?;
        clear(&copy)?;
        copy_files(&root().join(source), &copy)?;
        from_npm(&format!("the front end's {name}"), &copy).await?;
    }
    Ok(folder)
}

/// Removes what an earlier copy has left, but neither packages nor the compiler's cache.
fn clear(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if NOT_COPIED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if NOT_COPIED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

impl FrontEnd {
    /// Starts `next dev` with the variables of an `.env.local`, which win over those of the file.
    pub async fn start(&self, port: u16, variables: &[(&str, String)]) -> Result<Running> {
        let mut command = Command::new(&self.node);
        command
            .args(["node_modules/next/dist/bin/next", "dev", "--port", &port.to_string()])
            .current_dir(&self.folder)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("NEXT_TELEMETRY_DISABLED", "1");
        let mut server = Running::start(&mut command, Signal::SIGTERM)?;
        server.wait_for_port(port, Duration::from_secs(START_TIMEOUT_S)).await.context("Next.js did not start")?;
        Ok(server)
    }
}
