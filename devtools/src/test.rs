//! `cargo xtask test`: what a contributor runs before each push; everything; or parts of it.
use crate::{
    checks::logs,
    checks::openapi,
    checks::sam,
    checks::supply_chain,
    faults::matrix,
    faults::soak,
    fuzz, migrate,
    servers::better_auth,
    servers::moto::Moto,
    servers::pgbouncer::{PgBouncer, Pooling},
    servers::postgres::{Postgres, Purpose, write_private},
    system::process::{run_command, step},
    system::tools::{cargo, find_in_path, find_or_install, hold_folder, target},
};
use anyhow::{Context as _, Error, Result, bail};
use clap::ValueEnum;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::PathBuf,
    time::Instant,
};
use tokio::process::Command;

/// What the part `versions` runs on: a major version of PostgreSQL, and how PgBouncer pools.
const OTHER_VERSIONS: [(Option<u32>, Pooling); 3] =
    [(Some(17), Pooling::TRANSACTION), (Some(18), Pooling::TRANSACTION), (None, Pooling::SESSION)];

/// The test that prints what each kind of database went through.
const DATABASES: &str = "every_kind_of_database";

/// A part of the tests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The code is formatted.
    Fmt,
    /// No warning of clippy's, in any target.
    Clippy,
    /// The documentation builds without a warning.
    Doc,
    /// What the API compiles is free of the migration library and the AWS SDK.
    Dependencies,
    /// What comes from others: licences, versions, sources, advisories (where there is a network), and that all of it is used.
    SupplyChain,
    /// Unit tests, which need nothing.
    Unit,
    /// The functions, through a Lambda Runtime API, on PostgreSQL behind PgBouncer.
    Api,
    /// The plans of the list's statements among a million tasks.
    Plans,
    /// 20,000 of the events that `cargo xtask fuzz` makes.
    Fuzz,
    /// The migrations, on PostgreSQL.
    Migrations,
    /// The migrate function, with PostgreSQL, moto's Secrets Manager and a stand-in for CloudFormation.
    Migrate,
    /// openapi.yaml by Spectral's and OWASP's rules.
    Contract,
    /// template.yaml by the rules of SAM and cfn-lint, and what SAM's translator makes of it.
    Template,
    /// template.yaml by checkov's rules.
    Checkov,
    /// `cargo xtask deploy` with a stand-in for the SAM CLI.
    Deploy,
    /// `sam build`, and every function that it made under AWS's Runtime Interface Emulator.
    SamBuild,
    /// What `sam build` made: its size, the files that it opens, and the instructions that a call takes.
    Guard,
    /// `cargo xtask dev`, from its start to Ctrl-C, and the routes through cargo lambda watch.
    Dev,
    /// What a client meets when the database, its pooler or the network between fails, as a matrix.
    Faults,
    /// `cargo xtask soak --quick`: a minute of load and faults, and a count of each write.
    Soak,
    /// Thousands of requests generated from openapi.yaml, and a developer in a browser.
    Reference,
    /// The real Better Auth in front of the API, on its own tables and on the document's.
    BetterAuth,
    /// Four kinds of databases that users have: up, signed in, every route, down, and up again.
    Databases,
    /// The API's and the migrations' tests on other versions of PostgreSQL and PgBouncer's other mode.
    Versions,
}

/// What a contributor runs before each push: the code, the API, the migrations, the contract and the template, without what
/// needs an AWS SDK, a release build, a browser, or minutes.
const BEFORE_A_PUSH: [Part; 9] = [
    Part::Fmt,
    Part::Clippy,
    Part::Dependencies,
    Part::Unit,
    Part::Api,
    Part::Fuzz,
    Part::Migrations,
    Part::Contract,
    Part::Template,
];

impl Part {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it uses the servers that [`Services`] starts.
    fn needs_services(self) -> bool {
        matches!(
            self,
            Self::Api
                | Self::Plans
                | Self::Fuzz
                | Self::Migrations
                | Self::Migrate
                | Self::SamBuild
                | Self::Guard
                | Self::BetterAuth
                | Self::Databases
        )
    }
}

/// What `cargo xtask test` is told.
#[derive(clap::Args)]
pub struct Options {
    /// The parts to run [default: fmt clippy dependencies unit api fuzz migrations contract template, for before each push]
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Run every part, as CI does
    #[arg(long, conflicts_with = "parts")]
    all: bool,
    /// Go on after a part that fails, and list those that failed at the end
    #[arg(long)]
    keep_going: bool,
    /// Only tests whose name contains this (for unit, api, migrations, migrate, deploy, sam-build, guard, dev, faults, reference and better-auth)
    #[arg(long)]
    filter: Option<String>,
}

/// Runs the parts in order, and ends with the first that fails unless it is told to go on.
pub async fn test(options: &Options) -> Result<()> {
    let parts = match (options.all, options.parts.is_empty()) {
        (true, _) => Part::value_variants(),
        (false, true) => &BEFORE_A_PUSH,
        (false, false) => &*options.parts,
    };
    let filter: Vec<&str> = options.filter.iter().map(String::as_str).collect();
    let mut durations = Durations::read();
    if parts.len() > 1 {
        println!("{}", durations.list(parts));
    }
    let (mut services, mut summary, mut failures) = (None, Vec::new(), Vec::new());
    for (index, part) in parts.iter().enumerate() {
        let name = part.name();
        if part.needs_services() && services.is_none() {
            services = Some(Services::start().await?);
        }
        if *part == Part::Versions {
            // On the same folders, one after the other.
            services = None;
        }
        step(format!("Testing: {name} ({} of {})", index + 1, parts.len()));
        let began = Instant::now();
        let mut result = run_part(*part, &filter, services.as_ref()).await;
        if let (Ok(()), Some(services)) = (&result, &services) {
            result = services.check_logs();
        }
        let seconds = began.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                summary.push(format!("{name:14} passed in {seconds:6.1} s"));
                if filter.is_empty() {
                    durations.record(&name, seconds)?;
                }
            }
            Err(error) => {
                let error = failed(&name, options.filter.as_deref(), error);
                if !options.keep_going {
                    return Err(error);
                }
                eprintln!("error: {error:#}");
                summary.push(format!("{name:14} FAILED in {seconds:6.1} s"));
                failures.push(name);
            }
        }
    }
    println!("\n{}", summary.join("\n"));
    if !failures.is_empty() {
        bail!("{} of {} parts failed: {}", failures.len(), parts.len(), failures.join(", "));
    }
    Ok(())
}

/// The error of a part, with the command that runs it alone.
fn failed(name: &str, filter: Option<&str>, error: Error) -> Error {
    let filter = filter.map(|filter| format!(" --filter {filter}")).unwrap_or_default();
    error.context(format!("the part '{name}' failed; it runs alone by 'cargo xtask test {name}{filter}'"))
}

/// How long each part took when it last passed, in seconds.
struct Durations(BTreeMap<String, f64>);

impl Durations {
    fn read() -> Self {
        let text = fs::read(Self::file()).unwrap_or_default();
        Self(serde_json::from_slice(&text).unwrap_or_default())
    }

    fn file() -> PathBuf {
        target().join("test-durations.json")
    }

    fn record(&mut self, name: &str, seconds: f64) -> Result<()> {
        self.0.insert(name.to_owned(), seconds);
        fs::create_dir_all(target())?;
        Ok(fs::write(Self::file(), serde_json::to_vec_pretty(&self.0)?)?)
    }

    /// What is going to be run, and how long that took the last time.
    fn list(&self, parts: &[Part]) -> String {
        let lines: Vec<_> = parts
            .iter()
            .map(|part| {
                let name = part.name();
                let last = self.0.get(&name).map(|seconds| format!("{seconds:6.1} s the last time"));
                format!("{name:14} {}", last.as_deref().unwrap_or("  not run here yet"))
            })
            .collect();
        let sum: f64 = parts.iter().filter_map(|part| self.0.get(&part.name())).sum();
        let sum = format!("{:14} {sum:6.1} s, as far as it is known", "together");
        format!("{}\n{sum}\n", lines.join("\n"))
    }
}

async fn run_part(part: Part, filter: &[&str], services: Option<&Services>) -> Result<()> {
    let with_filter = |args: &[&str]| {
        let mut command = cargo(args);
        command.args(filter);
        command
    };
    match part {
        Part::Fmt => run_command(&mut cargo(&["fmt", "--all", "--check"])).await,
        Part::Clippy => {
            run_command(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
                .await
        }
        Part::Doc => {
            let mut command = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
            run_command(command.env("RUSTDOCFLAGS", "-D warnings")).await
        }
        Part::Dependencies => dependencies().await,
        Part::SupplyChain => supply_chain::check().await,
        Part::Unit => {
            run_command(&mut with_filter(&[
                "test",
                "--locked",
                "--workspace",
                "--exclude",
                "functions",
                "--lib",
                "--bins",
            ]))
            .await
        }
        Part::Api => {
            run_with(services, &mut with_filter(&["test", "--locked", "--package", "functions", "--test", "api"])).await
        }
        Part::Plans => {
            let mut command = cargo(&["test", "--locked", "--package", "functions", "--test", "api", "plans"]);
            run_with(services, command.args(["--", "--ignored", "--nocapture"])).await
        }
        Part::Fuzz => fuzz::quick(services.context("the services run")?).await,
        Part::Migrations => {
            run_with(
                services,
                &mut with_filter(&["test", "--locked", "--package", "migrations", "--test", "migrations"]),
            )
            .await
        }
        Part::Migrate => {
            let mut command = with_filter(&["test", "--locked", "--package", "migrate", "--test", "migrate"]);
            command.env("MOTO_URL", services.context("the services run")?.moto.url());
            run_with(services, &mut command).await
        }
        Part::Contract => openapi::lint().await,
        Part::Template => sam::check_template().await,
        Part::Checkov => sam::checkov().await,
        Part::Deploy => {
            run_command(&mut with_filter(&["test", "--locked", "--package", "devtools", "--test", "deploy"])).await
        }
        Part::SamBuild => {
            sam::build().await?;
            let mut command = with_filter(&["test", "--locked", "--package", "devtools", "--test", "emulator"]);
            command.args(["--", "--nocapture"]).env("RUNTIME_INTERFACE_EMULATOR", sam::emulator().await?);
            run_with(services, &mut command).await
        }
        Part::Guard => {
            sam::build().await?;
            let mut command = with_filter(&["test", "--locked", "--package", "devtools", "--test", "guard"]);
            command.args(["--", "--nocapture"]);
            for tool in ["valgrind", "strace"] {
                command.env(tool.to_uppercase(), find_or_install(tool, || find_in_path(tool), tool).await?);
            }
            run_with(services, &mut command).await
        }
        Part::Faults => matrix::faults(filter.first().copied()).await,
        Part::Soak => soak::soak(&soak::Options::quick()).await,
        Part::Reference => {
            let mut command = with_filter(&["test", "--locked", "--package", "devtools", "--test", "reference"]);
            command.env("SCHEMATHESIS", openapi::schemathesis().await?).env("CHROMIUM", chromium().await?);
            run_command(command.args(["--", "--nocapture"])).await
        }
        Part::BetterAuth => {
            let library = better_auth::install().await?;
            let mut command =
                cargo(&["test", "--locked", "--package", "functions", "--test", "api", "the_library_itself"]);
            command.args(["--", "--ignored", "--nocapture"]).env("BETTER_AUTH", library.folder());
            run_with(services, &mut command).await?;
            let chromium = chromium().await?;
            let mut command = with_filter(&["test", "--locked", "--package", "devtools", "--test", "better_auth"]);
            command.args(["--", "--skip", DATABASES]);
            run_with(services, command.env("CHROMIUM", chromium)).await
        }
        Part::Versions => {
            for (major, pooling) in OTHER_VERSIONS {
                let services = Services::start_with(major, pooling).await?;
                for (package, test) in [("functions", "api"), ("migrations", "migrations")] {
                    let mut command = with_filter(&["test", "--locked", "--package", package, "--test", test]);
                    run_with(Some(&services), &mut command).await?;
                }
            }
            Ok(())
        }
        Part::Databases => {
            let mut command = cargo(&["test", "--locked", "--package", "devtools", "--test", "better_auth", DATABASES]);
            run_with(services, command.args(["--", "--nocapture"])).await
        }
        Part::Dev => {
            run_command(&mut with_filter(&["test", "--locked", "--package", "devtools", "--test", "dev"])).await
        }
    }
}

async fn chromium() -> Result<PathBuf> {
    let on_path = || ["chromium", "google-chrome"].into_iter().find_map(find_in_path);
    find_or_install("Chromium", on_path, "chromium").await
}

async fn run_with(services: Option<&Services>, command: &mut Command) -> Result<()> {
    run_command(services.context("the services run")?.name_to(command)).await
}

/// The servers that the integration tests use, with a migrated database for them to copy.
pub struct Services {
    _lock: File,
    _pooler: PgBouncer,
    moto: Moto,
    postgres: Postgres,
    file: PathBuf,
    logs: PathBuf,
}

impl Services {
    /// Those that most tests use: any PostgreSQL, and PgBouncer as Neon runs it.
    pub async fn start() -> Result<Self> {
        Self::start_with(None, Pooling::TRANSACTION).await
    }

    async fn start_with(postgres_major: Option<u32>, pooling: Pooling) -> Result<Self> {
        let folder = target().join("test");
        let way_out = "wait until it ends, or name another folder by CARGO_TARGET_DIR";
        let lock = hold_folder(&folder, way_out)?;
        step("Starting PostgreSQL");
        let postgres = Postgres::start(&folder.join("postgres"), Purpose::Test, postgres_major).await?;
        step(format!("PostgreSQL {} runs on 127.0.0.1:{}", postgres.version(), postgres.port()));
        let mut connection = migrate::connect(&postgres.owner_url()).await?;
        let api_url = shared::DatabaseUrl::parse(&postgres.api_url())?;
        migrate::up(&mut connection, Some(&api_url)).await?;
        drop(connection);
        let pooler = PgBouncer::start(&folder.join("pgbouncer"), &postgres, pooling).await?;

        let moto = Moto::start().await?;

        let logs = folder.join("logs");
        let _ = std::fs::remove_dir_all(&logs);
        std::fs::create_dir_all(&logs)?;
        let file = folder.join("services.json");
        let services = json!({
            "postgres_port": postgres.port(),
            "superuser_password": postgres.superuser_password(),
            "owner_url": postgres.owner_url(),
            "pooler_port": pooler.port(),
            "api_password": postgres.api_password(),
            "template": postgres.database(),
            "certificate": postgres.certificate(),
            "certificate_key": postgres.key(),
            "moto_url": moto.url(),
            "moto_server": moto.program(),
            "logs": &logs,
            "postgres_log": folder.join("postgres/postgres.log"),
        });
        write_private(&file, services.to_string().as_bytes())?;
        Ok(Self { _lock: lock, _pooler: pooler, moto, postgres, file, logs })
    }

    /// Tells a command where they are.
    pub fn name_to<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("TASKS_TEST_SERVICES", &self.file)
    }

    /// Fails when what the functions have logged so far has a secret in it.
    pub fn check_logs(&self) -> Result<()> {
        logs::check(&self.logs, &[self.postgres.superuser_password(), self.postgres.api_password()])
    }
}

/// Fails when a heavy dependency has come into what every function and its tests compile.
async fn dependencies() -> Result<()> {
    let tree =
        cargo(&["tree", "--locked", "--package", "functions", "--edges", "normal,build,dev", "--prefix", "none"]);
    let output = { tree }.output().await?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let tree = String::from_utf8(output.stdout)?;
    // The SDK and its HTTP client; AWS's signer and what that needs is small.
    let sdk = ["aws-config", "aws-sdk-", "aws-smithy-runtime v", "aws-smithy-http-client"];
    for heavy in sdk.into_iter().chain(["sqlx", "rustls v", "ring v"]) {
        if let Some(line) = tree.lines().find(|line| line.starts_with(heavy)) {
            bail!("the functions or their tests depend on {line}");
        }
    }
    Ok(())
}
