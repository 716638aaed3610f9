//! `cargo xtask dev`: runs the API on this machine, with its own database or a given one.
mod call_log;

use self::call_log::CallLog;
use crate::{
    servers::{
        better_auth, front_end,
        functions::{Functions, Print, Sources},
        gateway::{Backend, Gateway, TIMEOUT, Watch},
        postgres::{Postgres, Purpose, secret, write_private},
        schema,
        seed::{SeededUser, seed},
        watch::watch,
    },
    system::{
        build::build_functions,
        process::{Running, shell_quoted},
        tools::{cargo_lambda, free_port, lock_folder},
    },
};
use anyhow::{Context as _, Result, bail};
use migrations::AuthOptions;
use reqwest::StatusCode;
use shared::Config;
use sqlx::PgConnection;
use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};
use testing::OpenApi;
use tokio::time::sleep;
use xtask::{
    cli::{self, Dev},
    database::Given,
    durations::Short,
    place::{dev_folder, variable},
    step,
};

/// Maximum number of processes per function. Like Lambda, the local server starts another one if calls overlap.
const INSTANCES: usize = 2;

/// The host in every address that is printed: a browser keeps the cookies of `localhost` and `127.0.0.1` apart.
const HOST: &str = "localhost";

/// Timeout for the first answers of the built API, in seconds.
const START_TIMEOUT_S: u64 = 120;

/// Starts everything, prints how to use it, and runs until Ctrl-C or until one of the servers ends.
pub async fn dev(options: &Dev) -> Result<()> {
    let began = Instant::now();
    let folder = dev_folder(options.folder.as_deref())?;
    let _lock = lock_folder(&folder, "end it, or name another folder by --folder and another port by --port")?;
    let port = api_port(options)?;
    let sign_in_port = options.sign_in_port(port);
    let env_file = EnvFile::new(&folder);
    let postgres_folder = folder.join("postgres");
    let given = Given::find(&postgres_folder)?;

    // Validate the settings first: the rest can take minutes.
    let mut settings = Settings::new(&folder, port, sign_in_port)?;
    settings.set("DATABASE_URL", given.as_ref().map_or("postgresql://a@localhost/tasks", |given| &given.url));
    let config = settings.read()?;
    if let Some(given) = &given {
        try_database(given, &config).await?;
    }

    let better_auth = if options.better_auth { Some(better_auth::install().await?) } else { None };
    let front_end = if options.front_end { Some(front_end::install().await?) } else { None };
    let sources = Sources::scan();
    let binaries = build_functions().await?;
    let mut postgres = start_database(options, &postgres_folder, given.is_some()).await?;
    if let Some(postgres) = &postgres {
        settings.set("DATABASE_URL", &postgres.api_url());
    }
    let own_url = postgres.as_ref().map(Postgres::owner_url);
    let owner_url = own_url.or(given.map(|given| given.owner_url)).context("a database")?;
    let config = settings.read()?;
    let auth = schema::auth_options(&options.auth)?;
    let users = prepare_database(&owner_url, &config, postgres.is_some(), options.seed, auth).await?;

    let log = Arc::new(CallLog::new(options.json, &folder.join(cli::Log::Functions.file()))?);
    let (backend, mut watched) = start_functions(options.watch, binaries, sources, &settings, log.clone()).await?;
    let base_url = format!("http://{HOST}:{port}");
    let _gateway = Gateway::start(port, backend, settings.get("TRUSTED_ORIGINS")).await?;
    wait_until_ready(watched.as_mut(), &base_url).await?;
    let variables = front_end_variables(&settings, &owner_url, &base_url).await?;
    let mut sign_in_server = None;
    if let Some(port) = sign_in_port {
        if let Some(better_auth) = better_auth {
            step(format!("Starting Better Auth on {HOST}:{port}"));
            sign_in_server = Some(better_auth.start(port, &base_url, &owner_url, &settings.0).await?);
        } else if let Some(front_end) = front_end {
            step(format!("Starting the front end on {HOST}:{port}"));
            sign_in_server = Some(front_end.start(port, &variables).await?);
        }
    }
    let env_local = env_local(&variables);
    write_private(&folder.join("env.local"), env_local.as_bytes())?;
    env_file.write(&settings, &config, users.as_ref(), &base_url, &owner_url)?;
    step(format!("Ready after {}", Short(began.elapsed())));
    let welcome = Welcome {
        env_file: &env_file.0,
        env_local: &env_local,
        folder: options.folder.as_deref(),
        base_url: &base_url,
        front_end: sign_in_port.filter(|_| options.front_end),
    };
    welcome.print(users.as_ref().map(|[first, _]| first), postgres.is_some());
    // The log lines of the calls above arrive after their answers.
    sleep(Duration::from_millis(200)).await;
    log.show_calls();

    let server = postgres.as_mut().and_then(Postgres::server);
    tokio::select! {
        status = ended(watched.as_mut()) => bail!("cargo lambda watch ended: {}", status?),
        status = ended(sign_in_server.as_mut()) => bail!("what people sign in to has ended: {}", status?),
        status = ended(server) => {
            bail!("PostgreSQL ended: {}; its last lines are in {}", status?, postgres_folder.join("postgres.log").display())
        }
    }
}

/// Starts PostgreSQL, unless a database is given.
async fn start_database(options: &Dev, folder: &Path, is_given: bool) -> Result<Option<Postgres>> {
    if options.reset {
        step(format!("Removing {}", folder.display()));
        Postgres::remove(folder).await?;
    }
    if is_given {
        step("Using the database that DATABASE_URL and DATABASE_URL_UNPOOLED name");
        return Ok(None);
    }
    step("Starting PostgreSQL");
    let postgres = Postgres::start(folder, Purpose::Development, options.postgres).await?;
    step(format!("PostgreSQL {} runs on 127.0.0.1:{}", postgres.version(), postgres.port()));
    Ok(Some(postgres))
}

/// Starts what runs the functions; the second value is `cargo lambda watch`, if that does.
async fn start_functions(
    watch_with: cli::Watch,
    binaries: PathBuf,
    sources: Sources,
    settings: &Settings,
    log: Arc<CallLog>,
) -> Result<(Backend, Option<Running>)> {
    let print: Print = Arc::new(move |line: &str| log.write(line));
    match watch_with {
        cli::Watch::Gateway => {
            step("Starting the API");
            let functions = Functions::start(binaries, sources, INSTANCES, settings.0.clone(), TIMEOUT, print).await?;
            Ok((Backend::Own(functions), None))
        }
        cli::Watch::CargoLambda => {
            let (cargo_lambda, port) = (cargo_lambda().await?, free_port()?);
            let mut watch = watch(&cargo_lambda, port, INSTANCES, &settings.0, Stdio::piped()).await?;
            step("Starting the API (cargo lambda watch)");
            watch.read_lines(move |line| print(line))?;
            Ok((Backend::Watch(Watch::on(port)?), Some(watch)))
        }
    }
}

async fn ended(program: Option<&mut Running>) -> Result<std::process::ExitStatus> {
    match program {
        Some(program) => program.wait().await,
        None => std::future::pending().await,
    }
}

/// Returns the requested port, or a free one whose successor is free too.
fn api_port(options: &Dev) -> Result<u16> {
    if options.port != 0 {
        return Ok(options.port);
    }
    loop {
        let port = free_port()?;
        if TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

/// Fails if the given database refuses the owner or the API. Warns if both have the same role.
async fn try_database(given: &Given, config: &Config) -> Result<()> {
    step("Trying DATABASE_URL and DATABASE_URL_UNPOOLED");
    let mut owner = schema::connect(&given.owner_url).await?;
    let owner_name: String = sqlx::query_scalar("select current_user::text").fetch_one(&mut owner).await?;
    let api = &config.database.url;
    match migrations::connect_anywhere(api).await {
        Ok(_) => {}
        // The migrations create this role with the URL's password.
        Err(_) if api.user() == migrations::API_ROLE => {}
        Err(error) => bail!("DATABASE_URL: {error}"),
    }
    if api.user() == owner_name {
        eprintln!(
            "WARNING: DATABASE_URL and DATABASE_URL_UNPOOLED name the same role, so that the API has the owner's rights. \
             DATABASE_URL should name the role {}, which the migrations make",
            migrations::API_ROLE
        );
    }
    Ok(())
}

/// Migrates the database. Adds users if it is our own database, or if `seed_given` (`--seed`).
async fn prepare_database(
    owner_url: &str,
    config: &Config,
    is_own: bool,
    seed_given: bool,
    auth: AuthOptions,
) -> Result<Option<[SeededUser; 2]>> {
    step("Applying migrations");
    let mut connection: PgConnection = schema::connect(owner_url).await?;
    let migrated = schema::up(&mut connection, Some(&config.database.url), auth).await;
    if is_own {
        migrated.context(
            "the development database cannot be migrated ('cargo xtask dev --reset' starts with an empty one)",
        )?;
    } else {
        migrated?;
    }
    if !is_own && !seed_given {
        return Ok(None);
    }
    if migrations::auth_tables(&mut connection).await?.is_empty() {
        // The front end makes its tables after this, and its users.
        return Ok(None);
    }
    step("Adding two people with tasks, if they are not there yet");
    Ok(Some(seed(&mut connection).await?))
}

/// The functions' environment: this process's variables, with defaults.
struct Settings(BTreeMap<String, String>);

impl Settings {
    fn new(folder: &Path, port: u16, sign_in_port: Option<u16>) -> Result<Self> {
        let mut settings = Self(BTreeMap::new());
        if std::env::var_os("BETTER_AUTH_SECRETS").is_none() {
            settings.set_default("BETTER_AUTH_SECRET", || stored_secret(folder))?;
        }
        let front_end = format!("http://{HOST}:{}", sign_in_port.unwrap_or(3000));
        settings.set_default("BETTER_AUTH_URL", || Ok(front_end.clone()))?;
        settings.set_default("TRUSTED_ORIGINS", || {
            Ok(format!("http://localhost:3000,{front_end},http://localhost:{port},http://127.0.0.1:{port}"))
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
        let value = match variable(name) {
            Some(value) => value,
            None => make()?,
        };
        self.set(name, &value);
        Ok(())
    }

    /// Parses the settings like the functions do.
    fn read(&self) -> Result<Config> {
        let get = |name: &str| self.0.get(name).cloned().or_else(|| std::env::var(name).ok());
        Ok(Config::from_settings(get)?)
    }
}

/// The variables of a front end beside this API.
async fn front_end_variables(
    settings: &Settings,
    owner_url: &str,
    base_url: &str,
) -> Result<Vec<(&'static str, String)>> {
    let mut variables = vec![("DATABASE_URL", owner_url.to_owned())];
    for name in ["BETTER_AUTH_SECRETS", "BETTER_AUTH_SECRET", "BETTER_AUTH_URL"] {
        let value = Some(settings.get(name)).filter(|value| !value.is_empty()).map(str::to_owned);
        variables.extend(value.or_else(|| variable(name)).map(|value| (name, value)));
    }
    variables.push(("TASKS_API_URL", base_url.to_owned()));
    if schema::has_specification_names(&mut schema::connect(owner_url).await?).await? {
        variables.push(("AUTH_TABLES", "schema".to_owned()));
    }
    Ok(variables)
}

/// Writes variables as Next.js reads them from `.env.local`, where `$` would name another variable.
fn env_local(variables: &[(&str, String)]) -> String {
    variables.iter().map(|(name, value)| format!("{name}='{}'\n", value.replace('$', r"\$"))).collect()
}

/// Returns the stored secret, or creates it. The same secret keeps cookies valid between runs.
fn stored_secret(folder: &Path) -> Result<String> {
    let file = folder.join("better-auth-secret");
    if let Ok(kept) = fs::read_to_string(&file) {
        return Ok(kept);
    }
    let made = secret()?;
    write_private(&file, made.as_bytes())?;
    Ok(made)
}

/// Waits for `/health`, then calls each route that needs a session, so that a developer's first call is no cold start.
async fn wait_until_ready(mut watch: Option<&mut Running>, base_url: &str) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(START_TIMEOUT_S)).build()?;
    let until = Instant::now() + Duration::from_secs(START_TIMEOUT_S);
    loop {
        if let Some(watch) = &mut watch {
            watch.check()?;
        }
        match client.get(format!("{base_url}/health?deep=true")).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => break,
            Ok(answer) if answer.status() == StatusCode::INTERNAL_SERVER_ERROR && watch.is_none() => {
                bail!("the function health does not start: its output is above")
            }
            Ok(answer) if Instant::now() > until => bail!("the API answers {} to /health", answer.status()),
            Err(error) if Instant::now() > until => return Err(error).context("the API does not answer"),
            _ => sleep(Duration::from_millis(200)).await,
        }
    }
    let openapi = OpenApi::read()?;
    for route in openapi.routes.iter().filter(|route| route.needs_session() && !route.names_user()) {
        let url = format!("{base_url}{}", route.path_and_query("", "0"));
        let answer = client.request(route.method.parse()?, url).send().await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            bail!("{route} answers {} without a session, expected 401", answer.status());
        }
    }
    Ok(())
}

/// The file with variables for scripts (`. target/dev/env`). It exists only while the API runs, so a script can wait
/// for it.
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
            values.extend(config.session_rules.cookie(&first.token).map(|cookie| ("TASKS_COOKIE", cookie)));
            values.push(("TASKS_USER_ID", first.id.clone()));
            values.push(("TASKS_TOKEN_2", second.token.clone()));
        }
        // Not by their own names: `next dev` in the same shell would prefer them to its .env.local.
        values.push(("TASKS_DATABASE_URL_UNPOOLED", owner_url.to_owned()));
        values.push(("TASKS_DATABASE_URL", settings.get("DATABASE_URL").to_owned()));
        values.push(("TASKS_BETTER_AUTH_SECRET", settings.get("BETTER_AUTH_SECRET").to_owned()));
        values.push(("TASKS_BETTER_AUTH_URL", settings.get("BETTER_AUTH_URL").to_owned()));
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

/// The message that is printed once everything runs.
struct Welcome<'w> {
    env_file: &'w Path,
    env_local: &'w str,
    /// The value of `--folder`.
    folder: Option<&'w Path>,
    base_url: &'w str,
    /// The front end's port, if it runs.
    front_end: Option<u16>,
}

impl Welcome<'_> {
    fn print(&self, user: Option<&SeededUser>, has_own_database: bool) {
        let Self { env_file, env_local, folder, base_url, front_end } = self;
        match front_end {
            Some(port) => println!("\nSign up and keep tasks in a browser: http://{HOST}:{port}"),
            None => println!("\nFor the .env.local of a front end, such as examples/nextjs:\n\n{env_local}"),
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
        let folder = folder.map(|folder| format!(" --folder {}", folder.display())).unwrap_or_default();
        let reset = if has_own_database {
            format!("\nBegin anew:      cargo xtask dev --reset{folder}")
        } else {
            String::new()
        };
        println!(
            "
Read and try it: {base_url}/docs
For scripts:     . {}   (URLs, tokens and secrets)
The database:    cargo xtask psql{folder}
All log lines:   cargo xtask logs [postgres]{folder}{reset}

A change to the code is served with the next call. Ctrl-C ends everything.
",
            env_file.display(),
        );
    }
}
