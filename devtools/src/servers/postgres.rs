//! A local PostgreSQL with TLS and passwords, on a free port of 127.0.0.1, in a folder under target/.
use crate::{servers::postgres_binaries, system::process::Running, system::tools::free_port};
use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::Signal,
    unistd::{User, chown, geteuid},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{process::Command, time::sleep};
use xtask::step;

/// Timeout of the server's start, in seconds. After a crash, it includes the recovery.
const START_TIMEOUT_S: u64 = 60;

/// The role that owns the database and runs the migrations. Like on Neon, it is not a superuser but may create roles.
const OWNER: &str = "tasks_owner";
/// The development database.
const DATABASE: &str = "tasks";
/// This machine's name in a container, as in Docker Desktop.
pub const THIS_MACHINE: &str = "host.docker.internal";

/// The purpose of a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Keeps its data; every connection is encrypted.
    Development,
    #[cfg_attr(not(feature = "bench"), expect(dead_code, reason = "only benchmarks are for this"))]
    /// Like development, with more memory and connections.
    Benchmark,
    /// Starts without data, does not sync to disk, and allows connections without TLS, so that a test can read the
    /// traffic.
    Test,
}

/// A running server; dropping it stops it.
pub struct Postgres {
    server: Option<Running>,
    bin: PathBuf,
    folder: PathBuf,
    settings: Settings,
    certificate: PathBuf,
    version: String,
}

/// Settings that are stored with the data.
#[derive(Clone, Serialize, Deserialize)]
struct Settings {
    port: u16,
    superuser_password: String,
    owner_password: String,
    api_password: String,
}

impl Postgres {
    /// Starts a server in `folder`, which is created if needed. Existing data decides the version, else `major`, if
    /// given.
    pub async fn start(folder: &Path, purpose: Purpose, major: Option<u32>) -> Result<Self> {
        // Only the major version that wrote the data can read it.
        let kept = fs::read_to_string(folder.join("data/PG_VERSION")).ok().filter(|_| purpose != Purpose::Test);
        let major = kept.and_then(|version| version.trim().parse().ok()).or(major);
        let bin = postgres_binaries::find_or_install(major).await?;
        if purpose == Purpose::Test && folder.exists() {
            stop_left_over(&bin, folder).await;
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let settings_file = folder.join("settings.json");
        let is_new = !settings_file.exists();

        let mut settings = if is_new {
            Settings {
                port: free_port()?,
                superuser_password: secret()?,
                owner_password: secret()?,
                api_password: secret()?,
            }
        } else {
            serde_json::from_slice(&fs::read(&settings_file)?).with_context(|| {
                format!("{} is damaged: remove {} to begin anew", settings_file.display(), folder.display())
            })?
        };
        if is_new {
            step(format!("Creating a PostgreSQL database folder in {}", folder.display()));
            initialise(&bin, folder, &settings, purpose).await?;
        } else {
            stop_left_over(&bin, folder).await;
            if TcpListener::bind(("127.0.0.1", settings.port)).is_err() {
                settings.port = free_port()?;
            }
        }

        let certificate = folder.join("server.crt");
        let server = launch(&bin, folder, &settings, &certificate).await?;
        let mut connection = connect_as_superuser(&settings, &certificate).await?;
        let version = sqlx::query_scalar("show server_version").fetch_one(&mut connection).await?;
        if is_new {
            for statement in [
                format!("create role {OWNER} login createrole password '{}'", settings.owner_password),
                format!("create database {DATABASE} owner {OWNER}"),
            ] {
                sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
            }
        }
        // Written last: it marks a complete folder.
        write_private(&settings_file, &serde_json::to_vec_pretty(&settings)?)?;
        Ok(Self { server: Some(server), bin, folder: folder.to_owned(), settings, certificate, version })
    }

    /// Stops the server with a "fast" shutdown, which aborts running statements, and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        tokio::task::block_in_place(|| drop(self.server.take()));
        self.server = Some(launch(&self.bin, &self.folder, &self.settings, &self.certificate).await?);
        Ok(())
    }

    /// Stops a server that still runs in `folder`, and removes the folder.
    pub async fn remove(folder: &Path) -> Result<()> {
        if folder.exists() {
            stop_left_over(&postgres_binaries::find_or_install(None).await?, folder).await;
            fs::remove_dir_all(folder)?;
        }
        Ok(())
    }

    /// The server's process, to wait for its end.
    pub fn server(&mut self) -> Option<&mut Running> {
        self.server.as_mut()
    }

    /// The id of the server's first process, the parent of the others.
    #[cfg_attr(not(feature = "bench"), expect(dead_code, reason = "only benchmarks need it"))]
    pub fn process_id(&self) -> Result<u32> {
        let file = self.folder.join("data/postmaster.pid");
        let text = fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        Ok(text.lines().next().unwrap_or_default().trim().parse()?)
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// The server's self-signed certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// The API's role and the owner, with their passwords.
    pub fn roles(&self) -> [(&'static str, &str); 2] {
        [(migrations::API_ROLE, &self.settings.api_password), (OWNER, &self.settings.owner_password)]
    }

    /// The password of the API's role. A migration creates the role without it.
    pub fn api_password(&self) -> &str {
        &self.settings.api_password
    }

    /// The owner's URL of the development database.
    pub fn owner_url(&self) -> String {
        self.url(OWNER, &self.settings.owner_password, DATABASE)
    }

    /// The API role's URL of the development database.
    pub fn api_url(&self) -> String {
        self.url(migrations::API_ROLE, &self.settings.api_password, DATABASE)
    }

    pub fn superuser_password(&self) -> &str {
        &self.settings.superuser_password
    }

    /// The database in the URLs.
    pub fn database(&self) -> &str {
        DATABASE
    }

    /// The certificate's key file.
    pub fn key(&self) -> PathBuf {
        self.certificate.with_extension("key")
    }

    fn url(&self, user: &str, password: &str, database: &str) -> String {
        url(user, password, self.settings.port, database, &self.certificate)
    }
}

/// Builds a URL that psql, the functions and the migrations accept.
pub fn url(user: &str, password: &str, port: u16, database: &str, certificate: &Path) -> String {
    let certificate = utf8_percent_encode(&certificate.to_string_lossy(), NON_ALPHANUMERIC)
        .to_string()
        .replace("%2F", "/")
        .replace("%2E", ".");
    format!("postgresql://{user}:{password}@127.0.0.1:{port}/{database}?sslmode=verify-full&sslrootcert={certificate}")
}

/// Returns a random secret of 256 bits in hexadecimal, which needs no quoting anywhere.
pub fn secret() -> Result<String> {
    let mut bytes = [0_u8; 32];
    fs::File::open("/dev/urandom").and_then(|mut random| std::io::Read::read_exact(&mut random, &mut bytes))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

/// Returns the user to run servers as if we are root: PostgreSQL refuses to run as root.
pub fn server_user() -> Option<User> {
    if !geteuid().is_root() {
        return None;
    }
    ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten())
}

/// Returns a command that runs as [`server_user`] and can reach `folder`, even if other users cannot enter a parent
/// folder.
pub fn as_server_user(program: &Path, folder: &Path) -> Command {
    let Some(user) = server_user() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={}", user.uid), &format!("--regid={}", user.gid), "--clear-groups"]);
    let is_closed =
        |folder: &Path| fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0);
    if folder.ancestors().skip(1).chain(program.ancestors().skip(1)).any(is_closed) {
        command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]);
        // Without this, access(2) ignores the capabilities (capabilities(7), "securebits"). initdb finds the server
        // with it.
        command.arg("--securebits=+no_setuid_fixup");
    }
    command.arg("--").arg(program).current_dir("/");
    command
}

/// Changes the owner of a file or folder to [`server_user`].
pub fn give_to_server_user(path: &Path) -> Result<()> {
    if let Some(user) = server_user() {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

async fn initialise(bin: &Path, folder: &Path, settings: &Settings, purpose: Purpose) -> Result<()> {
    let data = folder.join("data");
    // Left over from an interrupted first start.
    if data.exists() {
        fs::remove_dir_all(&data)?;
    }
    fs::DirBuilder::new().mode(0o700).create(&data)?;
    give_to_server_user(&data)?;

    let password_file = folder.join("superuser-password");
    write_private(&password_file, settings.superuser_password.as_bytes())?;
    give_to_server_user(&password_file)?;
    let output = as_server_user(&bin.join("initdb"), folder)
        .arg("-D")
        .arg(&data)
        .args(["-U", "postgres", "-E", "UTF8", "--auth=scram-sha-256", "--no-sync"])
        .arg(if cfg!(target_os = "macos") { "--locale=en_US.UTF-8" } else { "--locale=C.UTF-8" })
        .arg(format!("--pwfile={}", password_file.display()))
        .stdin(Stdio::null())
        .output()
        .await
        .context("initdb cannot be started")?;
    fs::remove_file(password_file)?;
    if !output.status.success() {
        bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    let key = rcgen::generate_simple_self_signed(["localhost", "127.0.0.1", THIS_MACHINE].map(str::to_owned))?;
    fs::write(folder.join("server.crt"), key.cert.pem())?;
    write_private(&folder.join("server.key"), key.signing_key.serialize_pem().as_bytes())?;
    give_to_server_user(&folder.join("server.key"))?;

    let mut configuration = format!(
        "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nssl = on\nssl_cert_file = '{0}/server.crt'\nssl_key_file = '{0}/server.key'\n",
        folder.display()
    );
    configuration += match purpose {
        Purpose::Development => "",
        Purpose::Benchmark => "shared_buffers = '1GB'\nmax_wal_size = '4GB'\nmax_connections = 300\n",
        Purpose::Test => "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nmax_connections = 300\n",
    };
    fs::write(data.join("postgresql.auto.conf"), configuration)?;
    let connection_type = if purpose == Purpose::Test { "host" } else { "hostssl" };
    fs::write(data.join("pg_hba.conf"), format!("{connection_type} all all 127.0.0.1/32 scram-sha-256\n"))?;
    Ok(())
}

/// Starts the server in an initialised folder, and waits until the superuser can connect.
async fn launch(bin: &Path, folder: &Path, settings: &Settings, certificate: &Path) -> Result<Running> {
    let log_file = folder.join("postgres.log");
    let log = fs::File::create(&log_file)?;
    let mut command = as_server_user(&bin.join("postgres"), folder);
    command.arg("-D").arg(folder.join("data")).args(["-p", &settings.port.to_string()]);
    let mut server = Running::start(command.stdout(log.try_clone()?).stderr(log), Signal::SIGINT)?;
    wait_until_ready(&mut server, settings, certificate)
        .await
        .with_context(|| format!("PostgreSQL did not start: {}", last_lines(&log_file)))?;
    Ok(server)
}

/// Stops a server of an earlier run that was killed.
async fn stop_left_over(bin: &Path, folder: &Path) {
    let data = folder.join("data");
    if data.join("postmaster.pid").exists() {
        let _ = as_server_user(&bin.join("pg_ctl"), folder)
            .arg("-D")
            .arg(data)
            .args(["-m", "immediate", "-w", "stop"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await;
    }
}

async fn wait_until_ready(server: &mut Running, settings: &Settings, certificate: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(START_TIMEOUT_S);
    loop {
        server.check()?;
        match connect_as_superuser(settings, certificate).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connect_as_superuser(settings: &Settings, certificate: &Path) -> Result<PgConnection> {
    let url = url("postgres", &settings.superuser_password, settings.port, "postgres", certificate);
    Ok(PgConnection::connect(&url).await?)
}

fn last_lines(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
