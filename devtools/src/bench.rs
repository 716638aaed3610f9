//! `cargo xtask bench`: compares the API with common alternatives, on one database, in one run.
mod batch;
mod changes;
mod cost;
mod credentials;
mod database;
mod fair;
mod ours;
mod scale;

use self::{
    batch::batch,
    changes::changes,
    credentials::credentials,
    fair::fair,
    ours::{build_ours, ours, pack},
    scale::scale,
};
use crate::{
    servers::cluster::start_migrated,
    servers::pgbouncer::{PgBouncer, Pooling},
    servers::postgres::{Postgres, Purpose},
    system::process::run_command,
    system::tools::{find_or_install, node},
};
use anyhow::{Context as _, Result};
use bench::{
    backends::Backends,
    cpus::Cpus,
    plots,
    program::{Extent, Program},
    relay::Relay,
    report::{Measured, Report},
    secrets_manager::SecretsManager,
    trial::{self, Plan},
};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection};
use std::{
    collections::HashMap,
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::process::Command;
use xtask::{
    cli::{Bench, Subject},
    place::{find_in_path, root, target},
    step,
};

/// Lambda memory size of the functions in template.yaml, in MB. It limits the share of a CPU.
const DEPLOYED_MB: u32 = 256;
/// Delays of a round trip to Secrets Manager in the deployed path, in ms, with the rounds that are measured.
const SECRET_DELAYS_MS: [(f64, &str, usize); 3] =
    [(0.0, "secret 0 ms away", 7), (10.0, "secret 10 ms away", 25), (30.0, "secret 30 ms away", 7)];
/// Delay of a round trip to the database in the deployed path, in ms.
const DATABASE_DELAY_MS: f64 = 2.0;
/// Lambda memory size of another measurement, in MB.
const SMALL_MB: u32 = 128;
/// The time between two calls of the measurement under load, in ms: 200 calls a second.
const LOAD_INTERVAL_MS: u64 = 5;
/// The programs that the measurement under load leaves out: they need several times the interval for each call.
const TOO_SLOW_FOR_LOAD: [&str; 2] = ["python", "node"];
/// Where systems keep their root certificates, which clients of AWS read.
const SYSTEM_ROOTS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
/// Delays that the relay adds to each round trip, in ms. 0 measures the relay itself.
const DELAYS_MS: [(f64, &str); 3] = [(0.0, "network +0 ms"), (1.0, "network +1 ms"), (5.0, "network +5 ms")];
/// Four server connections are enough, because one process runs at a time.
const POOLING: Pooling = Pooling { server_connections: 4, ..Pooling::TRANSACTION };
/// The settings that are in the secret, as in template.yaml.
const SECRET_SETTINGS: [&str; 2] = ["DATABASE_URL", "BETTER_AUTH_SECRET"];
/// The session tokens of the users whose tasks are listed.
const TOKENS: &str = "select token from session where user_agent = 'bench' and user_id <> 'bench-nobody' order by id";

pub async fn bench(options: &Bench) -> Result<()> {
    match options.subject {
        Subject::Programs => programs(options).await,
        Subject::Scale => scale(options.quick).await,
        Subject::Credentials => credentials(options.quick, options.before.as_deref()).await,
        Subject::Batch => batch(options.quick).await,
        Subject::Changes => changes(options.quick).await,
        Subject::Fair => fair(options).await,
    }
}

/// Builds and measures all programs, and writes target/bench/results.json and the plots.
async fn programs(options: &Bench) -> Result<()> {
    let folder = target().join("bench");
    fs::create_dir_all(&folder)?;
    let logs = folder.join("logs");
    let _ = fs::remove_dir_all(&logs);
    fs::create_dir_all(&logs)?;
    let not_built = build(options, &folder, &logs).await?;

    // Only now: the builds use every core.
    let cpus = Cpus::set_one_aside()?;
    let database = Database::start(&folder).await?;
    let programs = measured_programs(options, &database, &folder, &not_built)?;
    let began = Instant::now();
    let report = measure_all(options, &database, programs, not_built, cpus, &folder).await?;
    report.print();
    fs::write(folder.join("results.json"), serde_json::to_vec_pretty(&report.json())?)?;
    fs::write(folder.join("results.md"), report.markdown())?;
    let plots = if options.publish { root().join("docs/performance") } else { folder.clone() };
    fs::create_dir_all(&plots)?;
    plots::draw(&report, &plots)?;
    if options.publish {
        let page = root().join("docs/performance.md");
        fs::write(&page, report.publish(&fs::read_to_string(&page)?))?;
    }
    println!(
        "\nMeasured in {:.0} s. Written: {}, results.md with the tables of docs/performance.md, and the plots in {}",
        began.elapsed().as_secs_f64(),
        folder.join("results.json").display(),
        plots.display()
    );
    Ok(())
}

/// Peers that could not be built, with the reason.
type NotBuilt = Vec<(&'static str, String)>;

fn is_wanted(options: &Bench, name: &str) -> bool {
    options.only.is_empty() || options.only.iter().any(|only| only == name)
}

/// Builds our functions, the floor, and the wanted peers.
async fn build(options: &Bench, folder: &Path, logs: &Path) -> Result<NotBuilt> {
    build_ours().await?;
    let mut not_built = Vec::new();
    for peer in PEERS.iter().filter(|peer| is_wanted(options, peer.name)) {
        if let Err(error) = peer.build(folder, logs).await {
            eprintln!("NOT BUILT: {}: {error:#}", peer.title);
            not_built.push((peer.name, format!("{error:#}")));
        }
    }
    Ok(not_built)
}

/// The programs to measure, ours first.
fn measured_programs(
    options: &Bench,
    database: &Database,
    folder: &Path,
    not_built: &NotBuilt,
) -> Result<Vec<Program>> {
    let mut programs = vec![ours(database.postgres.api_url(), folder, &target().join("release"))?];
    if is_wanted(options, "ours_prepared") {
        let mut prepared = Program { name: "ours_prepared", title: "ours, prepared", ..programs[0].clone() };
        prepared.environment.push(("PREPARED_STATEMENTS", "true".to_owned()));
        programs.push(prepared);
    }
    if let Some(before) = &options.before {
        let before = ours(database.postgres.api_url(), folder, before)?;
        programs.push(Program { name: "before", title: "before", ..before });
    }
    let floors = [("floor", "floor", "false"), ("floor_prepared", "floor, prepared", "true")];
    for (name, title, prepare) in floors.into_iter().filter(|(name, ..)| is_wanted(options, name)) {
        programs.push(floor(name, title, prepare, database, folder)?);
    }
    let is_built = |peer: &&Peer| not_built.iter().all(|(name, _)| *name != peer.name);
    for peer in PEERS.iter().filter(|peer| is_wanted(options, peer.name)).filter(is_built) {
        programs.push(peer.program(database, folder)?);
    }
    Ok(programs)
}

/// Measures the programs as they are deployed, with a direct connection, with less memory, through a pooler, and with
/// network delays.
async fn measure_all(
    options: &Bench,
    database: &Database,
    programs: Vec<Program>,
    not_built: NotBuilt,
    cpus: Option<Cpus>,
    folder: &Path,
) -> Result<Report> {
    let usual = Plan {
        name: "direct",
        rounds: if options.quick { 7 } else { 30 },
        lists: if options.quick { 60 } else { 100 },
        others: if options.quick { 4 } else { 8 },
        memory_mb: None,
        cpus,
        database: None,
        relay: None,
        secrets_relay: None,
        backends: Some(Backends::of_postmaster(database.postgres.process_id()?)),
        interval: None,
        tokens: database.tokens.clone(),
        logs: folder.join("logs"),
    };
    let machine = machine()?;
    let measure = |plan: Plan, programs: &[Program]| {
        step(format!("Measuring: {}", plan.name));
        let programs = programs.to_vec();
        tokio::task::spawn_blocking(move || {
            let results = trial::run(&programs, &plan);
            Measured::new(plan, &programs, results)
        })
    };
    let to = |port: u16| Some((address(database.postgres.port()), address(port)));
    let brief = |rounds: usize| Plan {
        rounds: if options.quick { 3 } else { rounds },
        lists: 30,
        others: 2,
        backends: None,
        ..usual.clone()
    };
    let mut deployed = Vec::new();
    let near = Arc::new(Relay::start(database.postgres.port(), milliseconds(DATABASE_DELAY_MS))?);
    let secrets = Secrets::start(database, &programs, near.port(), folder)?;
    for (delay_ms, name, rounds) in SECRET_DELAYS_MS {
        let relay = Arc::new(Relay::start(secrets.server.port(), milliseconds(delay_ms))?);
        let programs: Vec<_> = programs.iter().map(|program| secrets.deployed(program, relay.port())).collect();
        let plan = Plan {
            name,
            lists: 0,
            others: 0,
            memory_mb: Some(DEPLOYED_MB),
            relay: Some(near.clone()),
            secrets_relay: Some(relay),
            ..brief(rounds)
        };
        deployed.push((delay_ms, measure(plan, &programs).await?));
    }
    let direct = measure(usual.clone(), &programs).await?;
    let small = measure(Plan { name: "at 128 MB", memory_mb: Some(SMALL_MB), ..brief(12) }, &programs).await?;
    let keep_up: Vec<_> = programs.iter().filter(|it| !TOO_SLOW_FOR_LOAD.contains(&it.name)).cloned().collect();
    let plan = Plan {
        name: "at 128 MB, 200 calls a second",
        memory_mb: Some(SMALL_MB),
        interval: Some(Duration::from_millis(LOAD_INTERVAL_MS)),
        lists: 100,
        others: 0,
        ..brief(12)
    };
    let load = measure(plan, &keep_up).await?;
    let plan = Plan { name: "PgBouncer", database: to(database.pooler.port()), ..brief(8) };
    let pooled = measure(plan, &programs).await?;
    let mut delayed = Vec::new();
    for (delay_ms, name) in DELAYS_MS {
        let relay = Arc::new(Relay::start(database.postgres.port(), milliseconds(delay_ms))?);
        let plan = Plan { name, database: to(relay.port()), relay: Some(relay), ..brief(5) };
        delayed.push((delay_ms, measure(plan, &programs).await?));
    }
    Ok(Report { programs, not_built, deployed, direct, small, load, pooled, delayed, machine })
}

fn milliseconds(time: f64) -> Duration {
    Duration::from_secs_f64(time / 1000.0)
}

/// A stand-in for Secrets Manager with the settings of each program, by the program's name.
struct Secrets {
    server: SecretsManager,
    /// PEM file with the stand-in's certificate.
    certificate: String,
    /// PEM file with the system's roots and the stand-in's certificate. The peers read as many roots as on Lambda.
    all_roots: String,
}

impl Secrets {
    /// Starts it. The secrets lead to the database by `database_port`.
    fn start(database: &Database, programs: &[Program], database_port: u16, folder: &Path) -> Result<Self> {
        let (from, to) = (address(database.postgres.port()), address(database_port));
        let secret = |program: &Program| {
            let settings = program.environment.iter().filter(|(name, _)| SECRET_SETTINGS.contains(name));
            let settings: Map<_, _> =
                settings.map(|(name, value)| ((*name).to_owned(), value.replace(&from, &to).into())).collect();
            (program.name.to_owned(), Value::Object(settings).to_string())
        };
        let secrets = programs.iter().map(secret).collect();
        let certificate = fs::read(database.postgres.certificate())?;
        let server = SecretsManager::start(&certificate, &fs::read(database.postgres.key())?, secrets)?;
        let system = SYSTEM_ROOTS.iter().find_map(|file| fs::read(file).ok()).with_context(|| {
            format!("the system has no root certificates in {}: install ca-certificates", SYSTEM_ROOTS.join(" or "))
        })?;
        let all_roots = folder.join("roots.pem");
        fs::write(&all_roots, [system, certificate].concat())?;
        Ok(Self {
            server,
            certificate: database.postgres.certificate().display().to_string(),
            all_roots: all_roots.display().to_string(),
        })
    }

    /// A program as it is deployed: its settings are in a secret, which it reaches by `port`.
    fn deployed(&self, program: &Program, port: u16) -> Program {
        let mut deployed = program.clone();
        deployed.environment.retain(|(name, _)| !SECRET_SETTINGS.contains(name));
        deployed.environment.extend([
            // The name in template.yaml, and the peers' name.
            ("API_SECRET_ID", program.name.to_owned()),
            ("SECRET_ID", program.name.to_owned()),
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned()),
            ("AWS_SESSION_TOKEN", "A".repeat(800)),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER", format!("https://{}", address(port))),
        ]);
        let is_peer = PEERS.iter().any(|peer| peer.name == program.name);
        deployed.environment.push(("AWS_CA_BUNDLE", if is_peer { &self.all_roots } else { &self.certificate }.clone()));
        if is_peer {
            deployed.environment.push(("NODE_EXTRA_CA_CERTS", self.certificate.clone()));
            deployed.environment.push(("SSL_CERT_FILE", self.all_roots.clone()));
        }
        if let Some(command) = &program.command_with_secret {
            deployed.command.clone_from(command);
        }
        deployed
    }
}

/// The floor: a function that does the minimum.
fn floor(
    name: &'static str,
    title: &'static str,
    prepare: &'static str,
    database: &Database,
    folder: &Path,
) -> Result<Program> {
    let program = target().join("release/floor");
    Ok(Program {
        name,
        title,
        commands: HashMap::new(),
        command_with_secret: None,
        command: vec![program.display().to_string()],
        folder: folder.to_owned(),
        handler: "bootstrap",
        environment: vec![
            ("DATABASE_URL", database.peers_url()),
            ("PREPARE", prepare.to_owned()),
            ("ROOTS", database.postgres.certificate().display().to_string()),
            ("SSL_CERT_FILE", "/dev/null".to_owned()),
            ("SSL_CERT_DIR", "/dev/null".to_owned()),
        ],
        packages: vec![pack(&program, &folder.join("packages/floor.zip"))?],
        extent: Extent::List,
    })
}

/// A common alternative to our functions, from bench/peers.
struct Peer {
    name: &'static str,
    title: &'static str,
    source: &'static str,
    /// Programs that the build needs, with their Debian packages.
    needs: &'static [(&'static str, &'static str)],
    handler: &'static str,
    /// Appended to the database URL.
    url_suffix: &'static str,
}

/// Tools that compile AWS's runtime clients for Python and Node.js.
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
        // Without it, node-postgres verifies the certificate for sslmode=require, unlike psql.
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
            // AWS's SDK is compiled into another binary, so that it does not slow this one down.
            command_with_secret: (self.name == "rust_monolith").then(|| vec![path("with-secret/bootstrap")]),
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

struct Database {
    postgres: Postgres,
    pooler: PgBouncer,
    tokens: Vec<String>,
}

impl Database {
    async fn start(folder: &Path) -> Result<Self> {
        let (postgres, mut connection) = start_migrated(folder, Purpose::Benchmark, None).await?;
        let tokens = seed(&mut connection).await?;
        let pooler = PgBouncer::start(&folder.join("pgbouncer"), &postgres, POOLING).await?;
        Ok(Self { postgres, pooler, tokens })
    }

    /// The owner's URL with sslmode=require: the peers encrypt the connection, but do not verify the certificate.
    fn peers_url(&self) -> String {
        let url = self.postgres.owner_url();
        format!("{}?sslmode=require", url.split('?').next().unwrap_or(&url))
    }
}

/// Adds users with tasks, unless an earlier run did, and returns the users' tokens.
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

/// One line that describes the machine.
fn machine() -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let load = fs::read_to_string("/proc/loadavg")?;
    let load: Vec<_> = load.split_whitespace().take(3).collect();
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    Ok(format!("{count} cores of {}; load before {}", model.unwrap_or("an unknown model"), load.join(" ")))
}
