//! moto, a stand-in for AWS in tests: its server for Secrets Manager, and its Python for the deployment's scripts.
use crate::{
    system::process::Running,
    system::tools::{free_port, from_pypi},
};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::process::Command;
use xtask::place::target;

/// The version that the tests were written with.
const MOTO: &str = "moto[secretsmanager,server]==5.2.5";
/// Timeout of the server's start, in seconds.
const START_TIMEOUT_S: u64 = 60;

/// Installs moto if needed, and returns the folder of its programs.
pub async fn install() -> Result<PathBuf> {
    from_pypi("moto", &[MOTO]).await
}

/// A running server. Dropping it stops it.
pub struct Moto {
    _server: Running,
    program: PathBuf,
    port: u16,
}

impl Moto {
    /// Starts the server on a free port, without TLS.
    pub async fn start() -> Result<Self> {
        Self::start_with("moto", &[]).await
    }

    /// Starts a server with TLS and secrets of its own.
    pub async fn start_with_tls(certificate: &Path, key: &Path) -> Result<Self> {
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        Self::start_with("moto-tls", &["--ssl", "--ssl-cert", &certificate, "--ssl-key", &key]).await
    }

    async fn start_with(name: &str, arguments: &[&str]) -> Result<Self> {
        let program = install().await?.join("moto_server");
        let port = free_port()?;
        let file = target().join("test").join(name).with_extension("log");
        let log = File::create(&file)?;
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).args(arguments).stdout(log.try_clone()?).stderr(log);
        let mut server = Running::start(&mut command, Signal::SIGTERM)?;
        let started = server.wait_for_port(port, Duration::from_secs(START_TIMEOUT_S)).await;
        started.with_context(|| format!("moto did not start: see {}", file.display()))?;
        Ok(Self { _server: server, program, port })
    }

    /// The server's program, so that a test can start another one.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a server without TLS.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
