//! PgBouncer in front of a PostgreSQL server, with TLS on both sides, for all databases.
use crate::{
    servers::pgbouncer_binaries::{Program, find_or_install},
    servers::postgres::{Postgres, give_to_server_user, write_private},
    system::process::Running,
    system::tools::free_port,
};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use xtask::step;

/// Timeout of PgBouncer's start, in seconds.
const START_TIMEOUT_S: u64 = 20;

/// How clients share server connections.
#[derive(Clone, Copy)]
pub struct Pooling {
    /// `transaction` or `session`.
    pub mode: &'static str,
    /// Server connections per database and role.
    pub server_connections: u32,
    pub names: Names,
}

/// What PgBouncer does with the names of prepared statements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// Nothing, or what its version does by default: any version will do.
    Any,
    /// It gives statements names of its own, and prepares them where they are missing. Since 1.21.
    Tracked,
    /// Nothing, in a version that could track them.
    Untracked,
}

impl Pooling {
    /// Like Neon's. Several functions share two connections, so that their calls alternate on each in any order.
    pub const TRANSACTION: Self = Self { mode: "transaction", server_connections: 2, names: Names::Any };
    /// Like Neon's, which tracks statements. All clients share one connection, and so its prepared statements.
    pub const TRACKED: Self = Self { server_connections: 1, names: Names::Tracked, ..Self::TRANSACTION };
    /// The same with two connections.
    pub const TRACKED_ON_TWO: Self = Self { names: Names::Tracked, ..Self::TRANSACTION };
    /// A version that could track statements, with `max_prepared_statements = 0`.
    pub const UNTRACKED: Self = Self { names: Names::Untracked, ..Self::TRANSACTION };
    /// Each function has its own connection.
    pub const SESSION: Self = Self { mode: "session", server_connections: 20, names: Names::Any };
}

/// A running PgBouncer; dropping it stops it.
pub struct PgBouncer {
    server: Option<Running>,
    program: Program,
    folder: PathBuf,
    port: u16,
}

impl PgBouncer {
    /// Starts PgBouncer in `folder`, which is recreated, in front of `postgres`, for the API's role and the owner.
    pub async fn start(folder: &Path, postgres: &Postgres, pooling: Pooling) -> Result<Self> {
        let Pooling { mode, server_connections, names } = pooling;
        let program = find_or_install(names != Names::Any).await?;
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let port = free_port()?;
        step(format!("Starting PgBouncer in {mode} mode on 127.0.0.1:{port}"));
        let file = |name: &str| folder.join(name).display().to_string();
        fs::copy(postgres.certificate(), folder.join("server.crt"))?;
        write_certificate(folder, &fs::read(postgres.certificate())?, &fs::read(postgres.key())?)?;
        write_private(
            &folder.join("users.txt"),
            postgres.roles().map(|(role, password)| format!("\"{role}\" \"{password}\"\n")).concat().as_bytes(),
        )?;
        let mut configuration = format!(
            "[databases]
* = host=127.0.0.1 port={}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {}
pool_mode = {mode}
default_pool_size = {server_connections}
max_client_conn = 1000
server_login_retry = 1
server_idle_timeout = 10
ignore_startup_parameters = extra_float_digits
client_tls_sslmode = allow
client_tls_cert_file = {}
client_tls_key_file = {}
server_tls_sslmode = verify-full
server_tls_ca_file = {}
",
            postgres.port(),
            file("users.txt"),
            file("client.crt"),
            file("client.key"),
            file("server.crt"),
        );
        configuration += match names {
            Names::Any => "",
            Names::Tracked => "max_prepared_statements = 100\n",
            Names::Untracked => "max_prepared_statements = 0\n",
        };
        fs::write(folder.join("pgbouncer.ini"), configuration)?;
        for name in ["users.txt", "server.crt", "pgbouncer.ini"] {
            give_to_server_user(&folder.join(name))?;
        }
        let server = launch(&program, folder, port).await?;
        Ok(Self { server: Some(server), program, folder: folder.to_owned(), port })
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops PgBouncer immediately and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        if let Some(server) = self.server.take() {
            // SIGTERM is an immediate shutdown; SIGINT waits for running statements.
            server.signal(Signal::SIGTERM);
            tokio::task::block_in_place(|| drop(server));
        }
        self.server = Some(launch(&self.program, &self.folder, self.port).await?);
        Ok(())
    }

    /// Sends a signal, such as SIGSTOP.
    pub fn signal(&self, signal: Signal) {
        if let Some(server) = &self.server {
            server.signal(signal);
        }
    }

    /// Sets the certificate for clients, from the next start on.
    pub fn set_certificate(&self, certificate: &[u8], key: &[u8]) -> Result<()> {
        write_certificate(&self.folder, certificate, key)
    }
}

/// Writes the certificate for clients.
fn write_certificate(folder: &Path, certificate: &[u8], key: &[u8]) -> Result<()> {
    fs::write(folder.join("client.crt"), certificate)?;
    write_private(&folder.join("client.key"), key)?;
    ["client.crt", "client.key"].iter().try_for_each(|name| give_to_server_user(&folder.join(name)))
}

async fn launch(program: &Program, folder: &Path, port: u16) -> Result<Running> {
    let log_file = folder.join("pgbouncer.log");
    let log = fs::File::options().create(true).append(true).open(&log_file)?;
    let mut command = program.command(folder);
    command.arg(folder.join("pgbouncer.ini")).stdout(log.try_clone()?).stderr(log);
    let mut server = Running::start(&mut command, Signal::SIGINT)?;
    let started = server.wait_for_port(port, Duration::from_secs(START_TIMEOUT_S)).await;
    started.with_context(|| format!("PgBouncer did not start: see {}", log_file.display()))?;
    Ok(server)
}
