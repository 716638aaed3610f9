//! What each part runs.
use crate::{
    checks::{openapi, sam, supply_chain},
    faults::{matrix, soak},
    fuzz, generate,
    servers::{better_auth, pgbouncer::Pooling, services::Services},
    system::{
        build::{cargo_test, workspace_cargo},
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

/// What the part `versions` runs on: a major version of PostgreSQL, and how PgBouncer pools.
const OTHER_VERSIONS: [(Option<u32>, Pooling); 3] =
    [(Some(17), Pooling::TRANSACTION), (Some(18), Pooling::TRANSACTION), (None, Pooling::SESSION)];

/// The test that prints what each kind of database went through.
const DATABASES: &str = "every_kind_of_database";

/// `cargo xtask soak --quick`.
const QUICK_SOAK: Soak = Soak { quick: true, processes: None };

/// What parts run with.
pub struct Context<'o> {
    /// The servers of the tests, once they have been started.
    pub services: Option<Services>,
    /// Only tests whose name contains this.
    pub filter: Option<&'o str>,
    /// Whether to go on after a part that fails.
    pub keep_going: bool,
    /// Whether `sam build` has been run already.
    is_packaged: bool,
}

impl<'o> Context<'o> {
    /// As the command line says.
    pub fn new(options: &'o Test, is_packaged: bool) -> Self {
        let filter = options.filter.as_deref();
        Self { services: None, filter, keep_going: options.keep_going, is_packaged }
    }

    fn services(&self) -> Result<&Services> {
        self.services.as_ref().context("the servers of the tests have not been started")
    }

    /// Runs a test command with the names of the servers.
    async fn with_services(&self, command: &mut Command) -> Result<()> {
        run_tests(self.services()?.name_to(command)).await
    }

    /// `cargo test` of a target, with the filter.
    fn test(&self, target: &[&str]) -> Command {
        let mut command = cargo_test(target);
        command.args(self.filter);
        command
    }

    /// A test target that needs nothing.
    async fn test_alone(&self, target: &str) -> Result<()> {
        run_tests(&mut self.test(&["--test", target])).await
    }

    /// A test target that needs the servers.
    async fn test_with_services(&self, target: &str) -> Result<()> {
        self.with_services(&mut self.test(&["--test", target])).await
    }

    async fn package(&self) -> Result<()> {
        if self.is_packaged { Ok(()) } else { sam::build().await }
    }
}

/// What a part needs and runs.
pub struct Definition {
    /// Whether it uses the servers that [`Services`] starts.
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

    /// Runs the part.
    pub async fn run(&self, context: &Context<'_>) -> Result<()> {
        (self.run)(context).await
    }
}

/// What each part is.
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
        Part::Deploy => Definition::alone(|context| Box::pin(context.test_alone("deploy"))),
        Part::Package => Definition::alone(|_| Box::pin(sam::build())),
        Part::SamBuild => Definition::with_services(|context| Box::pin(sam_build(context))),
        Part::Guard => Definition::with_services(|context| Box::pin(guard(context))),
        Part::Dev => Definition::alone(|context| Box::pin(context.test_alone("dev"))),
        Part::Faults => Definition::alone(|context| Box::pin(matrix::faults(context.filter))),
        Part::Soak => Definition::alone(|_| Box::pin(soak::soak(&QUICK_SOAK))),
        Part::Reference => Definition::alone(|context| Box::pin(reference(context))),
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
    let mut command = cargo_test(&["--test", "better_auth", DATABASES]);
    context.with_services(command.args(["--", "--nocapture"])).await
}

async fn clippy(mut command: Command) -> Result<()> {
    run_command(command.args(["--all-targets", "--locked", "--", "-D", "warnings"])).await
}

async fn doc() -> Result<()> {
    let mut command = Command::from(build::cargo_everything("doc"));
    command.args(["--no-deps", "--document-private-items", "--locked"]);
    run_command(command.env("RUSTDOCFLAGS", "-D warnings")).await
}

/// The packages that the other parts leave out: the migrate function, and what measures.
async fn migrate(context: &Context<'_>) -> Result<()> {
    let mut command = Command::from(build::cargo_everything("test"));
    command.args(["--locked", "--test", "migrate", "--bin", "migrate", "--lib"]).args(context.filter);
    command.env("MOTO_URL", context.services()?.moto_url());
    context.with_services(&mut command).await
}

async fn sam_build(context: &Context<'_>) -> Result<()> {
    context.package().await?;
    let mut command = context.test(&["--test", "emulator"]);
    command.args(["--", "--nocapture"]).env("RUNTIME_INTERFACE_EMULATOR", sam::emulator().await?);
    context.with_services(&mut command).await
}

async fn guard(context: &Context<'_>) -> Result<()> {
    context.package().await?;
    let mut command = context.test(&["--test", "guard"]);
    command.args(["--", "--nocapture"]);
    for tool in ["valgrind", "strace"] {
        command.env(tool.to_uppercase(), find_or_install(tool, || find_in_path(tool), tool).await?);
    }
    context.with_services(&mut command).await
}

async fn reference(context: &Context<'_>) -> Result<()> {
    let mut command = context.test(&["--test", "reference"]);
    command.env("SCHEMATHESIS", openapi::schemathesis().await?).env("CHROMIUM", chromium().await?);
    run_tests(command.args(["--", "--nocapture"])).await
}

async fn better_auth(context: &Context<'_>) -> Result<()> {
    let library = better_auth::install().await?;
    let mut command = cargo_test(&["--test", "api", "the_library_itself"]);
    command.args(["--", "--ignored", "--nocapture"]).env("BETTER_AUTH", library.folder());
    context.with_services(&mut command).await?;
    let mut command = context.test(&["--test", "better_auth"]);
    command.args(["--", "--skip", DATABASES]).env("CHROMIUM", chromium().await?);
    context.with_services(&mut command).await
}

async fn versions(context: &Context<'_>) -> Result<()> {
    for (major, pooling) in OTHER_VERSIONS {
        let services = Services::start_with(major, pooling).await?;
        for test in ["api", "migrations"] {
            run_tests(services.name_to(&mut context.test(&["--test", test]))).await?;
        }
    }
    Ok(())
}

async fn chromium() -> Result<PathBuf> {
    let on_path = || ["chromium", "google-chrome"].into_iter().find_map(find_in_path);
    find_or_install("Chromium", on_path, "chromium").await
}

/// How many crates the front of `cargo xtask` may have: a newcomer waits for them without a word of ours.
const MAX_FRONT_CRATES: usize = 50;

/// Fails when a heavy dependency has come into what every function and its tests compile, or too many into the front.
async fn dependencies() -> Result<()> {
    let tree = tree("functions", "normal,build,dev").await?;
    // The SDK and its HTTP client; AWS's signer and what that needs is small.
    let sdk = ["aws-config", "aws-sdk-", "aws-smithy-runtime v", "aws-smithy-http-client"];
    for heavy in sdk.into_iter().chain(["sqlx", "rustls v", "ring v"]) {
        if let Some(line) = tree.iter().find(|line| line.starts_with(heavy)) {
            bail!("the functions or their tests depend on {line}");
        }
    }
    let front = self::tree("xtask", "normal,build").await?.len();
    if front > MAX_FRONT_CRATES {
        bail!("the front (xtask) has {front} crates, {MAX_FRONT_CRATES} at most: what is heavy belongs into devtools");
    }
    Ok(())
}

/// The crates that a package depends on by some kinds of edges, itself included.
async fn tree(package: &str, edges: &str) -> Result<BTreeSet<String>> {
    let mut tree = cargo(&["tree", "--locked", "--package", package, "--edges", edges, "--prefix", "none"]);
    let output = tree.output().await?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let lines = String::from_utf8(output.stdout)?;
    // A crate that was listed before has a mark behind it.
    Ok(lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect())
}
