//! The real Better Auth, from npm, for `cargo xtask dev --better-auth`: see devtools/better-auth/server.mjs.
use crate::{
    system::process::Running,
    system::tools::{copied_from_npm, node},
};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;

/// Timeout of the server's start, in seconds.
const START_TIMEOUT_S: u64 = 60;

/// What runs Better Auth.
const FILES: [&str; 5] = [
    "devtools/better-auth/package.json",
    "devtools/better-auth/package-lock.json",
    "devtools/better-auth/server.mjs",
    "devtools/better-auth/judge.mjs",
    "devtools/better-auth/jwt-judge.mjs",
];

/// An installed Better Auth.
pub struct BetterAuth {
    folder: PathBuf,
    node: PathBuf,
}

/// Installs the packages of package-lock.json into a folder under target/, unless they are there already.
pub async fn install() -> Result<BetterAuth> {
    let node = node("node")?;
    let folder = copied_from_npm("Better Auth", "better-auth", &FILES).await?;
    Ok(BetterAuth { folder, node })
}

impl BetterAuth {
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the server in front of the API at `api_url`, with the API's settings.
    pub async fn start(
        &self,
        port: u16,
        api_url: &str,
        owner_url: &str,
        settings: &BTreeMap<String, String>,
    ) -> Result<Running> {
        let mut command = Command::new(&self.node);
        command
            .arg("server.mjs")
            .current_dir(&self.folder)
            .envs(settings)
            .env("DATABASE_URL", owner_url)
            .env("API_URL", api_url)
            .env("PORT", port.to_string());
        let mut server = Running::start(&mut command, Signal::SIGTERM)?;
        server.wait_for_port(port, Duration::from_secs(START_TIMEOUT_S)).await.context("Better Auth did not start")?;
        Ok(server)
    }
}
