//! `cargo xtask dev`: the API on this machine, on a database of its own or on a given one.
mod call_log;

use self::call_log::CallLog;
use crate::{
    migrate,
    servers::better_auth,
    servers::gateway::Gateway,
    servers::postgres::{self, Postgres, Purpose, secret, write_private},
    servers::seed::{SeededUser, seed},
    system::process::{Running, run_command, shell_quoted, step},
    system::tools::{cargo, cargo_lambda, free_port, hold_folder, root, target},
};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use reqwest::StatusCode;
use shared::{Config, DatabaseUrl};
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{process::Command, time::sleep};

/// How many instances of each function the local server runs at most, as Lambda would run more when calls overlap.
const INSTANCES: usize = 2;

/// How long the API may take to answer once it has been built, in seconds.
const START_TIMEOUT_S: u64 = 120;

/// What `cargo xtask dev` is told.
#[derive(clap::Args)]
pub struct Options {
    /// The port on 127.0.0.1 that the API listens on.
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Run Better Auth and a page to sign in on as well, on the port after the API's
    #[arg(long)]
    better_auth: bool,
    /// The major version of PostgreSQL, the machine's or from npm; any by default
    #[arg(long, value_name = "MAJOR")]
    postgres: Option<u32>,
    /// Where the database and the file of settings are kept, target/dev by default
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Add two people with sessions and tasks to the database that DATABASE_URL names too; a database of our own always has them
    #[arg(long)]
    seed: bool,
    /// Show the functions' log lines as they are, JSON, instead of a readable line for each call
    #[arg(long)]
    json: bool,
}

/// Brings everything up, says how to use it, and keeps it until Ctrl-C.
pub async fn dev(options: &Options) -> Result<()> {
    let folder = options.folder.clone().unwrap_or_else(|| target().join("dev"));
    let folder = std::path::absolute(folder)?;
    let _lock = hold_folder(&folder, "end it, or name another folder by --folder and another port by --port")?;
    let port = options.port;
    let auth_port = options.better_auth.then_some(port.saturating_add(1));
    for port in [Some(port), auth_port].into_iter().flatten() {
        if TcpListener::bind(("127.0.0.1", port)).is_err() {
            bail!("port {port} is taken: choose another with --port");
        }
    }
    let env_file = EnvFile::new(&folder);
    let postgres_folder = folder.join("postgres");
    let given = given_databases(&postgres_folder)?;

    // Wrong settings first: the rest takes minutes.
    let mut settings = Settings::new(&folder, port, auth_port)?;
    settings.set("DATABASE_URL", given.as_ref().map_or("postgresql://a@localhost/tasks", |(url, _)| url));
    let config = settings.read()?;
    if let Some((_, owner_url)) = &given
        && DatabaseUrl::parse(owner_url).is_ok_and(|owner| owner.user() == config.database.url.user())
    {
        eprintln!(
            "WARNING: DATABASE_URL and DATABASE_URL_UNPOOLED name the same role, so that the API has the owner's rights. \
             DATABASE_URL should name the role tasks_api, which the migrations make"
        );
    }

    let cargo_lambda = cargo_lambda().await?;
    let better_auth = if options.better_auth { Some(better_auth::install().await?) } else { None };
    step("Building the functions (a fresh clone compiles OpenSSL too: a few minutes)");
    run_command(&mut cargo(&["build", "--package", "functions", "--bins"])).await?;

    let (postgres, owner_url) = match given {
        Some((_, owner_url)) => {
            step("Using the database that DATABASE_URL and DATABASE_URL_UNPOOLED name");
            (None, owner_url)
        }
        None => {
            step("Starting PostgreSQL");
            let postgres = Postgres::start(&postgres_folder, Purpose::Development, options.postgres).await?;
            step(format!("PostgreSQL {} runs on 127.0.0.1:{}", postgres.version(), postgres.port()));
            settings.set("DATABASE_URL", &postgres.api_url());
            let owner_url = postgres.owner_url();
            (Some(postgres), owner_url)
        }
    };
    let config = settings.read()?;

    step("Applying migrations");
    let mut connection = migrate::connect(&owner_url).await?;
    let migrated = migrate::up(&mut connection, Some(&config.database.url)).await;
    if postgres.is_some() {
        let folder = postgres_folder.display();
        migrated
            .with_context(|| format!("the development database cannot be migrated (remove {folder} to begin anew)"))?;
    } else {
        migrated?;
    }
    let users = if postgres.is_some() || options.seed {
        step("Adding two people with tasks, if they are not there yet");
        Some(seed(&mut connection).await?)
    } else {
        None
    };
    drop(connection);

    step("Starting the API (cargo lambda watch)");
    let watch_port = free_port()?;
    let mut watch = watch(&cargo_lambda, watch_port, INSTANCES, &settings.0, Stdio::piped())?;
    let log = Arc::new(CallLog::new(options.json));
    let lines = log.clone();
    watch.read_lines(move |line| lines.write(line))?;
    let base_url = format!("http://127.0.0.1:{port}");
    let _gateway = Gateway::start(port, watch_port, settings.get("TRUSTED_ORIGINS")).await?;
    wait_until_ready(&mut watch, &base_url).await?;
    let _auth_server = match better_auth.zip(auth_port) {
        Some((better_auth, port)) => {
            step(format!("Starting Better Auth on 127.0.0.1:{port}"));
            Some(better_auth.start(port, &base_url, &owner_url, &settings.0).await?)
        }
        None => None,
    };
    env_file.write(&settings, &config, users.as_ref(), &base_url, &owner_url)?;
    print_welcome(&env_file.0, users.as_ref().map(|[first, _]| first), &base_url, auth_port);
    // The lines of the calls above come behind their answers.
    sleep(Duration::from_millis(200)).await;
    log.show_calls();

    let status = watch.wait().await?;
    bail!("cargo lambda watch ended: {status}")
}

/// Starts `cargo lambda watch` on a port, with at most so many instances of each function, whose lines go to `output`.
pub fn watch(
    cargo_lambda: &Path,
    port: u16,
    instances: usize,
    settings: &BTreeMap<String, String>,
    output: Stdio,
) -> Result<Running> {
    Running::start(
        Command::new(cargo_lambda)
            // Behind the gateway, which answers preflight requests as API Gateway does.
            .args(["lambda", "watch", "-A", "127.0.0.1", "-P", &port.to_string(), "--disable-cors"])
            .args(["--concurrency", &instances.to_string()])
            .current_dir(root())
            .stdout(output)
            .envs(settings)
            // Errors and warnings of a rebuild, and no line for each instance that starts.
            .env("CARGO_TERM_QUIET", "true")
            .env("RUST_LOG", std::env::var_os("RUST_LOG").unwrap_or_else(|| "warn".into()))
            // The owner's rights are not for the functions.
            .env_remove("DATABASE_URL_UNPOOLED"),
        // Asked to end, it reports an error for each of the functions; they hold nothing that is not in the database.
        Signal::SIGKILL,
    )
}

/// The environment of the functions: what we were given, else what we make.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn new(folder: &Path, port: u16, auth_port: Option<u16>) -> Result<Self> {
        let mut settings = Self(BTreeMap::new());
        if std::env::var_os("BETTER_AUTH_SECRETS").is_none() {
            settings.set_default("BETTER_AUTH_SECRET", || kept_secret(folder))?;
        }
        settings.set_default("BETTER_AUTH_URL", || {
            Ok(auth_port.map_or_else(|| "http://localhost:3000".to_owned(), |port| format!("http://127.0.0.1:{port}")))
        })?;
        settings.set_default("TRUSTED_ORIGINS", || {
            Ok(format!("http://localhost:3000,http://localhost:{port},http://127.0.0.1:{port}"))
        })?;
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_owned(), value.to_owned());
    }

    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn set_default(&mut self, name: &str, make: impl FnOnce() -> Result<String>) -> Result<()> {
        let value = match std::env::var(name) {
            Ok(value) if !value.trim().is_empty() => value,
            _ => make()?,
        };
        self.set(name, &value);
        Ok(())
    }

    /// As the functions will read them.
    fn read(&self) -> Result<Config> {
        let get = |name: &str| self.0.get(name).cloned().or_else(|| std::env::var(name).ok());
        Ok(Config::from_settings(get)?)
    }
}

/// The two URLs of a database that is not ours, when they are set.
///
/// Those of our own, from a shell that has sourced the file of an earlier run, do not count.
fn given_databases(postgres_folder: &Path) -> Result<Option<(String, String)>> {
    let get = |name: &str| {
        let value = std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        value.filter(|url| !postgres::is_of(postgres_folder, url))
    };
    match (get("DATABASE_URL"), get("DATABASE_URL_UNPOOLED")) {
        (Some(url), Some(owner_url)) => Ok(Some((url, owner_url))),
        (None, None) => Ok(None),
        (Some(_), None) => bail!(
            "DATABASE_URL_UNPOOLED is not set: with DATABASE_URL it has to name the same database, as the owner and without a pooler"
        ),
        (None, Some(_)) => bail!(
            "DATABASE_URL is not set: with DATABASE_URL_UNPOOLED it has to name the same database, as the API's role"
        ),
    }
}

/// A secret of the development database's, which keeps its cookies good between runs.
fn kept_secret(folder: &Path) -> Result<String> {
    let file = folder.join("better-auth-secret");
    if let Ok(kept) = fs::read_to_string(&file) {
        return Ok(kept);
    }
    let made = secret()?;
    write_private(&file, made.as_bytes())?;
    Ok(made)
}

/// Calls each function once, so that none has its first start still before it when a person calls.
async fn wait_until_ready(watch: &mut Running, base_url: &str) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(START_TIMEOUT_S)).build()?;
    let until = Instant::now() + Duration::from_secs(START_TIMEOUT_S);
    loop {
        watch.check()?;
        match client.get(format!("{base_url}/health")).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => break,
            Ok(answer) if Instant::now() > until => bail!("the API answers {} to /health", answer.status()),
            Err(error) if Instant::now() > until => return Err(error).context("the API does not answer"),
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
    for (method, path) in [
        ("GET", "/api/tasks"),
        ("POST", "/api/tasks"),
        ("GET", "/api/tasks/0"),
        ("PUT", "/api/tasks/0"),
        ("DELETE", "/api/tasks/0"),
        ("PATCH", "/api/tasks/0"),
        ("PATCH", "/api/tasks/0/complete"),
        ("DELETE", "/api/tasks"),
        ("GET", "/api/session"),
    ] {
        let answer = client.request(method.parse()?, format!("{base_url}{path}")).send().await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            bail!("{method} {path} answers {} where it should ask for a session", answer.status());
        }
    }
    Ok(())
}

/// The file to be sourced. It is there while the API is: whoever waits for it finds the API ready.
struct EnvFile(PathBuf);

impl EnvFile {
    fn new(folder: &Path) -> Self {
        let file = Self(folder.join("env"));
        file.remove();
        file
    }

    fn write(
        &self,
        settings: &Settings,
        config: &Config,
        users: Option<&[SeededUser; 2]>,
        base_url: &str,
        owner_url: &str,
    ) -> Result<()> {
        let mut values = vec![("TASKS_URL", base_url.to_owned())];
        if let Some([first, second]) = users {
            values.push(("TASKS_TOKEN", first.token.clone()));
            values.push(("TASKS_COOKIE", config.session_rules.cookie(&first.token)));
            values.push(("TASKS_USER_ID", first.id.clone()));
            values.push(("TASKS_TOKEN_2", second.token.clone()));
        }
        values.push(("DATABASE_URL_UNPOOLED", owner_url.to_owned()));
        for name in ["DATABASE_URL", "BETTER_AUTH_SECRET", "BETTER_AUTH_URL"] {
            values.push((name, settings.get(name).to_owned()));
        }
        let mut lines = String::from("# Written by cargo xtask dev. To be sourced: . target/dev/env\n");
        for (name, value) in values {
            lines += &format!("export {name}={}\n", shell_quoted(&value));
        }
        let unfinished = self.0.with_extension("new");
        write_private(&unfinished, lines.as_bytes())?;
        Ok(fs::rename(unfinished, &self.0)?)
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for EnvFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn print_welcome(env_file: &Path, user: Option<&SeededUser>, base_url: &str, auth_port: Option<u16>) {
    if let Some(port) = auth_port {
        println!("\nSign up and try the tasks in a browser: http://127.0.0.1:{port}/");
    }
    match user {
        Some(SeededUser { token, .. }) => println!(
            "
The API answers on {base_url}. List the tasks of one of its users, and add one:

  curl -H 'Authorization: Bearer {token}' {base_url}/api/tasks

  curl -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \\
    -d '{{\"title\": \"Buy bread\"}}' {base_url}/api/tasks"
        ),
        None => println!(
            "
The API answers on {base_url}. Nobody was added to your database (--seed adds two people with tasks): call it with the token
of a session of yours.

  curl -H 'Authorization: Bearer TOKEN' {base_url}/api/tasks"
        ),
    }
    println!(
        "
All of it, to read and to try:  {base_url}/docs
URLs, tokens and secrets for scripts:  . {}
Ctrl-C ends everything.
",
        env_file.display(),
    );
}
