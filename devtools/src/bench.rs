//! `cargo xtask bench`: the API beside what people would otherwise write, on one database, in one run.
mod scale;

use self::scale::scale;
use crate::{
    servers::pgbouncer::{PgBouncer, Pooling},
    servers::postgres::{Postgres, Purpose, secret},
    servers::schema,
    system::process::run_command,
    system::tools::{cargo, find_or_install, node},
};
use anyhow::{Context as _, Result};
use bench::{
    cpus::Cpus,
    plots,
    program::{Extent, Program, Route},
    relay::Relay,
    report::{Measured, Report},
    trial::{self, Plan},
};
use sqlx::{AssertSqlSafe, PgConnection};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::process::Command;
use xtask::{
    build::functions,
    cli::{Bench, Subject},
    place::{find_in_path, root, target},
    step,
};
use zip::{ZipWriter, write::SimpleFileOptions};

/// The size of memory whose share of a CPU is measured too, in MB.
const SMALL_MB: u32 = 128;
/// What a longer network adds to each round trip, in ms. The first is the relay itself.
const DELAYS_MS: [(f64, &str); 3] = [(0.0, "network +0 ms"), (1.0, "network +1 ms"), (5.0, "network +5 ms")];
/// How many server connections PgBouncer has: one process at a time needs no more.
const POOLING: Pooling = Pooling { mode: "transaction", server_connections: 4 };
/// Whose tasks the benchmark lists.
const TOKENS: &str = "select token from session where user_agent = 'bench' and user_id <> 'bench-nobody' order by id";

/// Measures what is asked for.
pub async fn bench(options: &Bench) -> Result<()> {
    match options.subject {
        Subject::Programs => programs(options).await,
        Subject::Scale => scale(options.quick).await,
    }
}

/// Builds everything, measures it, and writes target/bench/results.json and the plots beside it.
async fn programs(options: &Bench) -> Result<()> {
    let folder = target().join("bench");
    fs::create_dir_all(&folder)?;
    let logs = folder.join("logs");
    let _ = fs::remove_dir_all(&logs);
    fs::create_dir_all(&logs)?;

    let is_wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    build_ours().await?;
    let mut not_built = Vec::new();
    for peer in PEERS.iter().filter(|peer| is_wanted(peer.name)) {
        if let Err(error) = peer.build(&folder, &logs).await {
            eprintln!("NOT BUILT: {}: {error:#}", peer.title);
            not_built.push((peer.name, format!("{error:#}")));
        }
    }

    // From here on; the builds take all.
    let cpus = Cpus::set_one_aside()?;
    let database = Database::start(&folder).await?;
    let mut programs = vec![ours(&database, &folder, &target().join("release"))?];
    if let Some(before) = &options.before {
        programs.push(Program { name: "before", title: "before", ..ours(&database, &folder, before)? });
    }
    programs.extend(is_wanted("floor").then(|| floor(&database, &folder)).transpose()?);
    for peer in PEERS.iter().filter(|peer| is_wanted(peer.name) && not_built.iter().all(|(name, _)| *name != peer.name))
    {
        programs.push(peer.program(&database, &folder)?);
    }

    let usual = Plan {
        name: "direct",
        rounds: if options.quick { 9 } else { 40 },
        lists: if options.quick { 60 } else { 100 },
        others: if options.quick { 4 } else { 8 },
        memory_mb: None,
        cpus,
        database: None,
        relay: None,
        tokens: database.tokens.clone(),
        logs,
    };
    let machine = machine()?;
    let measure = |plan: Plan| {
        step(format!("Measuring: {}", plan.name));
        let programs = programs.clone();
        tokio::task::spawn_blocking(move || {
            let results = trial::run(&programs, &plan);
            Measured::new(plan, &programs, results)
        })
    };
    let direct = measure(usual.clone()).await?;
    let brief =
        |rounds: usize| Plan { rounds: if options.quick { 3 } else { rounds }, lists: 30, others: 2, ..usual.clone() };
    let small = measure(Plan { name: "at 128 MB", memory_mb: Some(SMALL_MB), ..brief(15) }).await?;
    let to = |port: u16| Some((address(database.postgres.port()), address(port)));
    let pooled = measure(Plan { name: "PgBouncer", database: to(database.pooler.port()), ..brief(10) }).await?;
    let mut delayed = Vec::new();
    for (delay_ms, name) in DELAYS_MS {
        let relay = Arc::new(Relay::start(database.postgres.port(), Duration::from_secs_f64(delay_ms / 1000.0))?);
        let plan = Plan { name, database: to(relay.port()), relay: Some(relay), ..brief(6) };
        delayed.push((delay_ms, measure(plan).await?));
    }

    let report = Report { programs, not_built, direct, small, pooled, delayed, machine };
    report.print();
    fs::write(folder.join("results.json"), serde_json::to_vec_pretty(&report.json())?)?;
    let plots = if options.publish { root().join("docs/performance") } else { folder.clone() };
    fs::create_dir_all(&plots)?;
    plots::draw(&report, &plots)?;
    println!("\nWritten: {} and the plots in {}", folder.join("results.json").display(), plots.display());
    Ok(())
}

/// Ours, and the floor.
pub async fn build_ours() -> Result<()> {
    step("Building the functions and the floor for release (link-time optimisation takes minutes)");
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "functions", "--bins"])).await?;
    run_command(&mut cargo(&["build", "--release", "--locked", "--package", "bench", "--bins"])).await
}

/// Our functions, as the template runs them, from where they have been built.
fn ours(database: &Database, folder: &Path, built: &Path) -> Result<Program> {
    let packages_folder = folder.join("packages").join(built.file_name().context("a folder has a name")?);
    let mut packages = Vec::new();
    let names = functions()?;
    // The list's is the one that the table shows; the job and the reference are not the API.
    let api = names.iter().filter(|name| !["docs", "list-tasks", "purge"].contains(&name.as_str()));
    for name in std::iter::once("list-tasks").chain(api.map(String::as_str)) {
        packages.push(pack(&built.join(name), &packages_folder.join(format!("{name}.zip")))?);
    }
    let command = |name: &str| vec![built.join(name).display().to_string()];
    let commands = [
        (Route::Create, "create-task"),
        (Route::Get, "get-task"),
        (Route::Update, "update-task"),
        (Route::Toggle, "complete-task"),
        (Route::Delete, "delete-task"),
        (Route::Patch, "patch-task"),
        (Route::Session, "session"),
        (Route::Health, "health"),
        (Route::Clear, "clear-completed"),
    ];
    Ok(Program {
        name: "ours",
        title: "ours",
        commands: commands.map(|(route, name)| (route, command(name))).into(),
        command: command("list-tasks"),
        folder: folder.to_owned(),
        handler: "bootstrap",
        environment: our_environment(database.postgres.api_url())?,
        packages,
        extent: Extent::Ours,
    })
}

/// Our functions' settings, as the template sets them.
pub fn our_environment(database_url: String) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("DATABASE_URL", database_url),
        ("BETTER_AUTH_SECRET", secret()?),
        ("BETTER_AUTH_URL", "https://app.example.com".to_owned()),
        ("METRICS_NAMESPACE", "TaskApi".to_owned()),
        ("SERVICE_NAME", "task-api".to_owned()),
    ])
}

/// The least that a function can do.
fn floor(database: &Database, folder: &Path) -> Result<Program> {
    let program = target().join("release/floor");
    Ok(Program {
        name: "floor",
        title: "floor",
        commands: HashMap::new(),
        command: vec![program.display().to_string()],
        folder: folder.to_owned(),
        handler: "bootstrap",
        environment: vec![
            ("DATABASE_URL", database.peers_url()),
            ("ROOTS", database.postgres.certificate().display().to_string()),
            ("SSL_CERT_FILE", "/dev/null".to_owned()),
            ("SSL_CERT_DIR", "/dev/null".to_owned()),
        ],
        packages: vec![pack(&program, &folder.join("packages/floor.zip"))?],
        extent: Extent::List,
    })
}

/// What people would otherwise write: bench/peers has the programs.
struct Peer {
    name: &'static str,
    title: &'static str,
    source: &'static str,
    /// What its build needs, by program and Debian's package.
    needs: &'static [(&'static str, &'static str)],
    handler: &'static str,
    /// What follows the database's URL.
    url_suffix: &'static str,
}

/// AWS's runtime clients for Python and Node.js are compiled.
const FOR_RUNTIME_CLIENTS: &[(&str, &str)] =
    &[("cmake", "cmake"), ("autoconf", "autoconf"), ("automake", "automake"), ("libtoolize", "libtool")];

const PEERS: [Peer; 3] = [
    Peer {
        name: "python",
        title: "FastAPI + SQLModel",
        source: "python",
        needs: FOR_RUNTIME_CLIENTS,
        handler: "app.handler",
        url_suffix: "",
    },
    Peer {
        name: "node",
        title: "Hono + node-postgres",
        source: "node",
        needs: FOR_RUNTIME_CLIENTS,
        handler: "app.handler",
        // sslmode=require as psql means it, without which node-postgres verifies the certificate.
        url_suffix: "&uselibpqcompat=true",
    },
    Peer {
        name: "rust_monolith",
        title: "axum + sqlx",
        source: "rust-monolith",
        needs: &[("pkg-config", "pkg-config"), ("openssl", "libssl-dev")],
        handler: "bootstrap",
        url_suffix: "",
    },
];

impl Peer {
    async fn build(&self, folder: &Path, logs: &Path) -> Result<()> {
        step(format!("Building {}", self.title));
        for (program, package) in self.needs {
            find_or_install(program, || find_in_path(program), package).await?;
        }
        let into = folder.join(self.source);
        fs::create_dir_all(&into)?;
        let log_file = logs.join(format!("build-{}.log", self.source));
        let log = File::create(&log_file)?;
        let mut command = Command::new("bash");
        command.arg(root().join("bench/peers").join(self.source).join("build.sh")).arg(&into);
        let built = run_command(command.stdout(log.try_clone()?).stderr(log)).await;
        built.with_context(|| format!("see {}", log_file.display()))
    }

    fn program(&self, database: &Database, folder: &Path) -> Result<Program> {
        let built = folder.join(self.source);
        let package = built.join("package");
        let path = |name: &str| built.join(name).display().to_string();
        let command = match self.name {
            "python" => vec![path("runtime/bin/python"), "-m".into(), "awslambdaric".into(), self.handler.into()],
            "node" => {
                let node = node("node")?.display().to_string();
                vec![node, path("ric/node_modules/aws-lambda-ric/index.mjs"), self.handler.into()]
            }
            _ => vec![path("package/bootstrap")],
        };
        Ok(Program {
            name: self.name,
            title: self.title,
            commands: HashMap::new(),
            command,
            environment: vec![
                ("DATABASE_URL", format!("{}{}", database.peers_url(), self.url_suffix)),
                ("NODE_ENV", "production".to_owned()),
            ],
            packages: vec![pack(&package, &folder.join("packages").join(format!("{}.zip", self.name)))?],
            folder: package,
            handler: self.handler,
            extent: Extent::Shared,
        })
    }
}

/// What every program works on.
struct Database {
    postgres: Postgres,
    pooler: PgBouncer,
    tokens: Vec<String>,
}

impl Database {
    async fn start(folder: &Path) -> Result<Self> {
        step("Starting PostgreSQL");
        let postgres = Postgres::start(&folder.join("postgres"), Purpose::Benchmark, None).await?;
        step(format!("PostgreSQL {} runs on 127.0.0.1:{}", postgres.version(), postgres.port()));
        let mut connection = schema::connect(&postgres.owner_url()).await?;
        schema::up(&mut connection, Some(&shared::DatabaseUrl::parse(&postgres.api_url())?)).await?;
        let tokens = seed(&mut connection).await?;
        let pooler = PgBouncer::start(&folder.join("pgbouncer"), &postgres, POOLING).await?;
        Ok(Self { postgres, pooler, tokens })
    }

    /// The owner's URL as the others take it: they encrypt, and verify nothing.
    fn peers_url(&self) -> String {
        let url = self.postgres.owner_url();
        format!("{}?sslmode=require", url.split('?').next().unwrap_or(&url))
    }
}

/// Adds the users with their tasks, or finds them from an earlier run, and gives their tokens.
async fn seed(connection: &mut PgConnection) -> Result<Vec<String>> {
    let is_there: bool = sqlx::query_scalar("select exists (select from session where token = 'bench-nobody')")
        .fetch_one(&mut *connection)
        .await?;
    if !is_there {
        step("Adding 10,000 users with 1,000,000 tasks");
        let seed = fs::read_to_string(root().join("bench/seed.sql"))?;
        sqlx::raw_sql(AssertSqlSafe(seed)).execute(&mut *connection).await?;
    }
    for statement in [
        "delete from tasks where title like '% the benchmark'",
        "update session set expires_at = now() at time zone 'UTC' + interval '7 days'",
        "vacuum analyze tasks, session, \"user\"",
    ] {
        sqlx::raw_sql(statement).execute(&mut *connection).await?;
    }
    Ok(sqlx::query_scalar(TOKENS).fetch_all(connection).await?)
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A package as `sam build` and `sam deploy` make it, of a program (which is then called `bootstrap`) or a folder.
fn pack(what: &Path, to: &Path) -> Result<PathBuf> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut zip = ZipWriter::new(File::create(to)?);
    let options = SimpleFileOptions::default().unix_permissions(0o755).compression_level(Some(6));
    let mut files = vec![what.to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                files.push(entry?.path());
            }
            continue;
        }
        let inside = path.strip_prefix(what)?.to_string_lossy();
        zip.start_file(if inside.is_empty() { "bootstrap".into() } else { inside }, options)?;
        io::copy(&mut File::open(&path)?, &mut zip)?;
    }
    zip.finish()?.flush()?;
    Ok(to.to_owned())
}

/// The machine, in a line.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!("{count} cores of {}; load before {}", model.unwrap_or("an unknown model"), load.join(" ")))
}
