//! PgBouncer in front of a test server, with TLS on both sides, for every database there.
use crate::{
    postgres::{Postgres, as_server_user, give_to_server_user, write_private},
    process::{Running, step},
    tools::{find_in_path, find_or_install, free_port},
};
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use std::{fs, path::Path, time::Duration};

/// How long PgBouncer may take to listen, in seconds.
const START_TIMEOUT_S: u64 = 20;

/// How clients share server connections.
#[derive(Clone, Copy)]
pub struct Pooling {
    /// `transaction` or `session`.
    pub mode: &'static str,
    /// How many connections to the server there are for each database and role.
    pub server_connections: u32,
}

impl Pooling {
    /// As Neon's. Two connections: calls of several functions share them in every order.
    pub const TRANSACTION: Self = Self { mode: "transaction", server_connections: 2 };
    /// Each function keeps a connection.
    pub const SESSION: Self = Self { mode: "session", server_connections: 20 };
}

/// A running PgBouncer; dropping it stops it.
pub struct PgBouncer {
    _server: Running,
    port: u16,
}

impl PgBouncer {
    /// Starts one in `folder`, which is made anew, in front of `postgres`, for the API's role and the owner.
    pub async fn start(folder: &Path, postgres: &Postgres, pooling: Pooling) -> Result<Self> {
        let Pooling { mode, server_connections } = pooling;
        let program = find_or_install("PgBouncer", || find_in_path("pgbouncer"), "pgbouncer").await?;
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let port = free_port()?;
        step(format!("Starting PgBouncer in {mode} mode on 127.0.0.1:{port}"));
        let file = |name: &str| folder.join(name).display().to_string();
        fs::copy(postgres.certificate(), folder.join("server.crt"))?;
        fs::copy(postgres.key(), folder.join("server.key"))?;
        write_private(
            &folder.join("users.txt"),
            postgres.roles().map(|(role, password)| format!("\"{role}\" \"{password}\"\n")).concat().as_bytes(),
        )?;
        let configuration = format!(
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
server_idle_timeout = 10
client_tls_sslmode = allow
client_tls_cert_file = {}
client_tls_key_file = {}
server_tls_sslmode = verify-full
server_tls_ca_file = {}
",
            postgres.port(),
            file("users.txt"),
            file("server.crt"),
            file("server.key"),
            file("server.crt"),
        );
        fs::write(folder.join("pgbouncer.ini"), configuration)?;
        for name in ["users.txt", "server.key", "server.crt", "pgbouncer.ini"] {
            give_to_server_user(&folder.join(name))?;
        }
        let log = fs::File::create(folder.join("pgbouncer.log"))?;
        let mut command = as_server_user(&program, folder);
        command.arg(folder.join("pgbouncer.ini")).stdout(log.try_clone()?).stderr(log);
        let mut server = Running::start(&mut command, Signal::SIGINT)?;
        let started = server.wait_for_port(port, Duration::from_secs(START_TIMEOUT_S)).await;
        started.with_context(|| format!("PgBouncer did not start: see {}", file("pgbouncer.log")))?;
        Ok(Self { _server: server, port })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}
