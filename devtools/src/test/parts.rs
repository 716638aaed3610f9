//! The parts of `cargo xtask test`.
use super::{arm64, sam_local};
use crate::{
    checks::{openapi, orm, sam, supply_chain},
    faults::{matrix, soak},
    fuzz, generate,
    servers::{better_auth, front_end, moto, pgbouncer::Pooling, services::Services},
    system::{
        build::{cargo_test, limit_tests, workspace_cargo},
        process::{run_command, run_tests},
        tools::{cargo, find_or_install},
    },
};
use anyhow::{Context as _, Result, bail};
use std::{collections::BTreeSet, path::PathBuf, pin::Pin};
use tokio::process::Command;
use xtask::{
    build,
    cli::{Generate, Part, Soak, Test},
    place::find_in_path,
};

/// The configurations of the part `versions`: PostgreSQL's major version, and PgBouncer's pooling.
const OTHER_VERSIONS: [(Option<u32>, Pooling); 3] =
    [(Some(17), Pooling::TRANSACTION), (Some(18), Pooling::TRANSACTION), (None, Pooling::SESSION)];

/// The tests of the part `databases`.
const DATABASES: &str = "databases::";

/// Shared by the parts of a run.
pub struct Context<'o> {
    /// The test servers, once they have started.
    pub services: Option<Services>,
    /// Run only tests whose name contains this.
    pub filter: Option<&'o str>,
    /// Whether to continue after a failed part.
    pub keep_going: bool,
    /// Whether `sam build` has already run.
    is_packaged: bool,
    /// Whether the functions prepare statements in `faults` and `soak`.
    prepares: bool,
}

impl<'o> Context<'o> {
    /// Creates the context from the command line's options.
    pub fn new(options: &'o Test, is_packaged: bool) -> Self {
        let filter = options.filter.as_deref();
        Self { services: None, filter, keep_going: options.keep_going, is_packaged, prepares: options.prepared }
    }

    fn services(&self) -> Result<&Services> {
        self.services.as_ref().context("the servers of the tests have not been started")
    }

    /// Runs a test command with the test servers.
    async fn with_services(&self, command: &mut Command) -> Result<()> {
        run_tests(self.services()?.pass_to(command)).await
    }

    /// Returns `cargo test` for a target, with the filter.
    fn test(&self, target: &[&str]) -> Command {
        let mut command = cargo_test(target);
        command.args(self.filter);
        command
    }

    /// Runs a test target that needs no servers.
    async fn test_alone(&self, target: &str) -> Result<()> {
        run_tests(&mut self.test(&["--test", target])).await
    }

    /// Runs a test target that needs the test servers.
    async fn test_with_services(&self, target: &str) -> Result<()> {
        self.with_services(&mut self.test(&["--test", target])).await
    }

    async fn package(&self) -> Result<()> {
        if self.is_packaged { Ok(()) } else { sam::build().await }
    }
}

/// A part's requirement and code.
pub struct Definition {
    /// Whether the part needs [`Services`].
    pub needs_services: bool,
    run: for<'c> fn(&'c Context<'c>) -> Running<'c>,
}

type Running<'c> = Pin<Box<dyn Future<Output = Result<()>> + 'c>>;

impl Definition {
    fn alone(run: for<'c> fn(&'c Context<'c>) -> Running<'c>) -> Self {
        Self { needs_services: false, run }
    }

    fn with_services(run: for<'c> fn(&'c Context<'c>) -> Running<'c>) -> Self {
        Self { needs_services: true, run }
    }

    pub async fn run(&self, context: &Context<'_>) -> Result<()> {
        (self.run)(context).await
    }
}

/// Returns the definition of a part.
pub fn definition(part: Part) -> Definition {
    match part {
        Part::Fmt => Definition::alone(|_| Box::pin(fmt())),
        Part::Generated => Definition::alone(|_| Box::pin(async { generate::generate(&Generate { check: true }) })),
        Part::Clippy => Definition::alone(|_| Box::pin(clippy(workspace_cargo("clippy")))),
        Part::ClippyAll => Definition::alone(|_| Box::pin(clippy(build::cargo_everything("clippy").into()))),
        Part::Doc => Definition::alone(|_| Box::pin(doc())),
        Part::Dependencies => Definition::alone(|_| Box::pin(dependencies())),
        Part::SupplyChain => Definition::alone(|_| Box::pin(supply_chain::check())),
        Part::Unit => Definition::alone(|context| Box::pin(unit(context))),
        Part::Api => Definition::with_services(|context| Box::pin(context.test_with_services("api"))),
        Part::Plans => Definition::with_services(|context| Box::pin(plans(context))),
        Part::Fuzz => Definition::with_services(|context| Box::pin(quick_fuzz(context))),
        Part::Migrations => Definition::with_services(|context| Box::pin(context.test_with_services("migrations"))),
        Part::Migrate => Definition::with_services(|context| Box::pin(migrate(context))),
        Part::Contract => Definition::alone(|_| Box::pin(openapi::lint())),
        Part::Template => Definition::alone(|_| Box::pin(sam::check_template())),
        Part::Checkov => Definition::alone(|_| Box::pin(sam::checkov())),
        Part::Deploy => Definition::alone(|context| Box::pin(deploy(context))),
        Part::Package => Definition::alone(|_| Box::pin(sam::build())),
        Part::Arm64 => Definition::with_services(|context| Box::pin(arm64(context))),
        Part::SamBuild => Definition::with_services(|context| Box::pin(sam_build(context))),
        Part::SamLocal => Definition::with_services(|context| Box::pin(sam_local(context))),
        Part::Guard => Definition::with_services(|context| Box::pin(guard(context))),
        Part::Dev => Definition::alone(|context| Box::pin(context.test_alone("dev"))),
        Part::Faults => Definition::alone(|context| Box::pin(matrix::faults(context.filter, context.prepares))),
        Part::Soak => Definition::alone(|context| Box::pin(quick_soak(context))),
        Part::Reference => Definition::alone(|context| Box::pin(reference(context))),
        Part::FrontEnd => Definition::alone(|context| Box::pin(front_end(context))),
        Part::BetterAuth => Definition::with_services(|context| Box::pin(better_auth(context))),
        Part::Databases => Definition::with_services(|context| Box::pin(databases(context))),
        Part::Versions => Definition::alone(|context| Box::pin(versions(context))),
    }
}

async fn fmt() -> Result<()> {
    run_command(&mut cargo(&["fmt", "--all", "--check"])).await
}

async fn unit(context: &Context<'_>) -> Result<()> {
    run_tests(&mut context.test(&["--lib", "--bin", "devtools", "--bin", "xtask"])).await
}

async fn plans(context: &Context<'_>) -> Result<()> {
    let mut command = cargo_test(&["--test", "api", "plans"]);
    context.with_services(command.args(["--", "--ignored", "--nocapture"])).await
}

async fn quick_fuzz(context: &Context<'_>) -> Result<()> {
    fuzz::quick(context.services()?).await
}

async fn databases(context: &Context<'_>) -> Result<()> {
    better_auth::install().await?;
    orm::install().await?;
    let names = context.filter.unwrap_or(DATABASES);
    context.with_services(&mut cargo_test(&["--test", "better_auth", names])).await
}

async fn clippy(mut command: Command) -> Result<()> {
    run_command(command.args(["--all-targets", "--locked", "--", "-D", "warnings"])).await
}

async fn doc() -> Result<()> {
    let mut command = Command::from(build::cargo_everything("doc"));
    command.args(["--no-deps", "--document-private-items", "--locked"]);
    run_command(command.env("RUSTDOCFLAGS", "-D warnings")).await
}

/// Tests the packages that other parts exclude: the migrate function and the benchmarks.
async fn migrate(context: &Context<'_>) -> Result<()> {
    let mut command = test_migrate(context)?;
    command.args(["--bin", "migrate", "--lib"]).args(context.filter);
    context.with_services(&mut command).await
}

async fn deploy(context: &Context<'_>) -> Result<()> {
    let mut command = context.test(&["--test", "deploy"]);
    run_tests(command.env("PYTHON", moto::install().await?.join("python"))).await
}

/// Returns `cargo test` for the migrate function.
fn test_migrate(context: &Context<'_>) -> Result<Command> {
    let mut command = Command::from(build::cargo_everything("test"));
    command.args(["--locked", "--test", "migrate"]).env("MOTO_URL", context.services()?.moto_url());
    Ok(command)
}

async fn sam_build(context: &Context<'_>) -> Result<()> {
    context.package().await?;
    let mut command = context.test(&["--test", "emulator"]);
    command.args(["--", "--nocapture"]).env("RUNTIME_INTERFACE_EMULATOR", sam::emulator().await?);
    context.with_services(&mut command).await
}

/// Runs the tests of the API and of the migrate function with the programs for arm64. A filter chooses among the API's.
async fn arm64(context: &Context<'_>) -> Result<()> {
    const FOLDER: &str = "TASKS_TEST_PROGRAMS";
    let programs = arm64::programs().await?;
    let mut api = context.test(&["--test", "api"]);
    // Emulated programs are slow. With more of them at a time, Init exceeds its two seconds.
    limit_tests(&mut api, 1);
    context.with_services(api.env(FOLDER, &programs)).await?;
    if context.filter.is_some() {
        return Ok(());
    }
    context.with_services(test_migrate(context)?.env(FOLDER, &programs)).await
}

async fn sam_local(context: &Context<'_>) -> Result<()> {
    context.package().await?;
    sam_local::test(context.services()?, context.filter).await
}

async fn guard(context: &Context<'_>) -> Result<()> {
    context.package().await?;
    let mut command = context.test(&["--test", "guard"]);
    // One test at a time: another one beside it makes Init, which is slow under Valgrind, miss its time.
    command.args(["--", "--nocapture", "--test-threads=1"]);
    for tool in ["valgrind", "strace"] {
        command.env(tool.to_uppercase(), find_or_install(tool, || find_in_path(tool), tool).await?);
    }
    context.with_services(&mut command).await
}

/// `cargo xtask soak --quick`.
async fn quick_soak(context: &Context<'_>) -> Result<()> {
    soak::soak(&Soak { quick: true, processes: None, prepared: context.prepares }).await
}

async fn reference(context: &Context<'_>) -> Result<()> {
    let mut command = context.test(&["--test", "reference"]);
    command.env("SCHEMATHESIS", openapi::schemathesis().await?).env("CHROMIUM", chromium().await?);
    run_tests(command.args(["--", "--nocapture"])).await
}

async fn front_end(context: &Context<'_>) -> Result<()> {
    let mut command = context.test(&["--test", "front_end"]);
    command.env("FRONT_END", front_end::install_copy().await?).env("CHROMIUM", chromium().await?);
    run_tests(command.args(["--", "--nocapture"])).await
}

async fn better_auth(context: &Context<'_>) -> Result<()> {
    let better_auth = better_auth::install().await?;
    let mut command = cargo_test(&["--test", "api", "better_auth_agrees"]);
    command.args(["--", "--ignored", "--nocapture"]).env("BETTER_AUTH", better_auth.folder());
    context.with_services(&mut command).await?;
    let mut command = context.test(&["--test", "better_auth"]);
    command.args(["--", "--skip", DATABASES]);
    context.with_services(&mut command).await
}

async fn versions(context: &Context<'_>) -> Result<()> {
    for (major, pooling) in OTHER_VERSIONS {
        let services = Services::start_with(major, pooling).await?;
        let mut command = context.test(&["--test", "api", "--test", "migrations"]);
        // pg_dump refuses servers that are newer than itself, and this machine has the one of its own PostgreSQL.
        command.args(["--", "--skip", "the_restore_drill", "--skip", "restores::"]);
        run_tests(services.pass_to(&mut command)).await?;
    }
    let services = Services::start_with(None, Pooling::TRACKED).await?;
    let mut command = cargo_test(&["--test", "api", "loot::"]);
    run_tests(services.pass_to(command.args(["--", "--include-ignored", "--nocapture"]))).await?;
    services.check_logs()?;
    drop(services);
    for pooling in [Pooling::UNTRACKED, Pooling::TRACKED_ON_TWO] {
        let services = Services::start_with(None, pooling).await?;
        run_tests(services.pass_to(&mut cargo_test(&["--test", "api", "prepared::"]))).await?;
        services.check_logs()?;
    }
    Ok(())
}

async fn chromium() -> Result<PathBuf> {
    let on_path = || ["chromium", "google-chrome"].into_iter().find_map(find_in_path);
    find_or_install("Chromium", on_path, "chromium").await
}

/// Maximum number of crates of the package `xtask`: newcomers wait for their compilation before we can print anything.
const MAX_XTASK_CRATES: usize = 50;

/// Fails if the functions or their tests have a heavy dependency, or `xtask` has too many.
async fn dependencies() -> Result<()> {
    let tree = tree("functions", "normal,build,dev").await?;
    // The SDK and its HTTP client. AWS's signer and its dependencies are small, so they are allowed.
    let sdk = ["aws-config", "aws-sdk-", "aws-smithy-runtime v", "aws-smithy-http-client"];
    for heavy in sdk.into_iter().chain(["sqlx", "rustls v", "ring v"]) {
        if let Some(line) = tree.iter().find(|line| line.starts_with(heavy)) {
            bail!("the functions or their tests depend on {line}");
        }
    }
    let crates = self::tree("xtask", "normal,build").await?.len();
    if crates > MAX_XTASK_CRATES {
        bail!(
            "the package xtask has {crates} crates, {MAX_XTASK_CRATES} at most: heavy dependencies belong into devtools"
        );
    }
    Ok(())
}

/// Returns the crates in a package's dependency tree, including the package.
async fn tree(package: &str, edges: &str) -> Result<BTreeSet<String>> {
    let mut tree = cargo(&["tree", "--locked", "--package", package, "--edges", edges, "--prefix", "none"]);
    let output = tree.output().await?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout)?;
    // `(*)` marks a crate that was listed before.
    Ok(lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}
