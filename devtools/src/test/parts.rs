//! What each part runs.
use crate::{
    checks::{openapi, sam, supply_chain},
    faults::{matrix, soak},
    fuzz,
    servers::{better_auth, pgbouncer::Pooling, services::Services},
    system::{
        build::{cargo_test, workspace_cargo},
        process::{run_command, run_tests},
        tools::{cargo, find_or_install},
    },
};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use tokio::process::Command;
use xtask::{
    build,
    cli::{Part, Soak, Test},
    place::find_in_path,
};

/// What the part `versions` runs on: a major version of PostgreSQL, and how PgBouncer pools.
const OTHER_VERSIONS: [(Option<u32>, Pooling); 3] =
    [(Some(17), Pooling::TRANSACTION), (Some(18), Pooling::TRANSACTION), (None, Pooling::SESSION)];

/// The test that prints what each kind of database went through.
const DATABASES: &str = "every_kind_of_database";

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

    async fn package(&self) -> Result<()> {
        if self.is_packaged { Ok(()) } else { sam::build().await }
    }
}

/// Whether a part uses the servers that [`Services`] starts.
pub fn needs_services(part: Part) -> bool {
    matches!(
        part,
        Part::Api
            | Part::Plans
            | Part::Fuzz
            | Part::Migrations
            | Part::Migrate
            | Part::SamBuild
            | Part::Guard
            | Part::BetterAuth
            | Part::Databases
    )
}

/// Runs a part.
pub async fn run(part: Part, context: &Context<'_>) -> Result<()> {
    match part {
        Part::Fmt => run_command(&mut cargo(&["fmt", "--all", "--check"])).await,
        Part::Clippy => clippy(workspace_cargo("clippy")).await,
        Part::ClippyAll => clippy(build::cargo_everything("clippy").into()).await,
        Part::Doc => doc().await,
        Part::Dependencies => dependencies().await,
        Part::SupplyChain => supply_chain::check().await,
        Part::Unit => run_tests(&mut context.test(&["--lib", "--bin", "devtools", "--bin", "xtask"])).await,
        Part::Api => context.with_services(&mut context.test(&["--test", "api"])).await,
        Part::Plans => {
            let mut command = cargo_test(&["--test", "api", "plans"]);
            context.with_services(command.args(["--", "--ignored", "--nocapture"])).await
        }
        Part::Fuzz => fuzz::quick(context.services()?).await,
        Part::Migrations => context.with_services(&mut context.test(&["--test", "migrations"])).await,
        Part::Migrate => migrate(context).await,
        Part::Contract => openapi::lint().await,
        Part::Template => sam::check_template().await,
        Part::Checkov => sam::checkov().await,
        Part::Deploy => run_tests(&mut context.test(&["--test", "deploy"])).await,
        Part::Package => sam::build().await,
        Part::SamBuild => sam_build(context).await,
        Part::Guard => guard(context).await,
        Part::Dev => run_tests(&mut context.test(&["--test", "dev"])).await,
        Part::Faults => matrix::faults(context.filter).await,
        Part::Soak => soak::soak(&Soak { quick: true, processes: None }).await,
        Part::Reference => reference(context).await,
        Part::BetterAuth => better_auth(context).await,
        Part::Databases => {
            let mut command = cargo_test(&["--test", "better_auth", DATABASES]);
            context.with_services(command.args(["--", "--nocapture"])).await
        }
        Part::Versions => versions(context).await,
    }
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
