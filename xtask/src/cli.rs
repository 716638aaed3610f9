//! What can be commanded. The commands themselves are in the package `devtools`.
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The developer's commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command with its options.
#[derive(Subcommand)]
pub enum Command {
    /// Run the API on this machine, on a PostgreSQL of its own or the one that DATABASE_URL and DATABASE_URL_UNPOOLED name
    Dev(Dev),
    /// Open psql on the database of a running 'cargo xtask dev', as its owner
    Psql(Psql),
    /// Show what the functions, or PostgreSQL, of 'cargo xtask dev' have logged
    Logs(Logs),
    /// Build the functions, deploy them to AWS with the SAM CLI, and call the deployed API
    Deploy(Deploy),
    /// Run the tests: those for before a push, all, or by part
    Test(Test),
    /// Measure the API beside programs in Python, Node.js and Rust that do the same, and beside a hand-written minimum (on Linux)
    Bench(Bench),
    /// Write what follows from the routes of openapi.yaml: functions, limits and dashboard in template.yaml, the router in Cargo.toml
    Generate(Generate),
    /// Load many processes with many clients while servers fail, and count what became of each write
    Soak(Soak),
    /// Try a million events that nobody should send: no 5xx, no panic
    Fuzz(Fuzz),
    /// Change the session check and the tasks' statements, one place at a time, and list what no test notices
    Mutants(Mutants),
    /// Build the functions for release and print size, GLIBC version and shared libraries of each
    Sizes,
    /// Bring a database's tables up to date, or back
    #[command(subcommand)]
    Migrate(Migrate),
}

/// Options of `cargo xtask dev`.
#[derive(Args)]
pub struct Dev {
    /// The port on 127.0.0.1 that the API listens on; 0 for one that is free
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// Run Better Auth and a page to sign in on as well, on the port after the API's
    #[arg(long)]
    pub better_auth: bool,
    /// The major version of PostgreSQL, the machine's or from npm; any by default
    #[arg(long, value_name = "MAJOR")]
    pub postgres: Option<u32>,
    /// Where the database and the file of settings are kept, target/dev by default
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Remove the database of an earlier run, with everything in it, and begin anew. Never touches one that DATABASE_URL names
    #[arg(long)]
    pub reset: bool,
    /// Add two people with sessions and tasks to the database that DATABASE_URL names too; a database of our own always has them
    #[arg(long)]
    pub seed: bool,
    /// Show the functions' log lines as they are, JSON, instead of a readable line for each call
    #[arg(long)]
    pub json: bool,
    /// What runs the functions and builds them again after a change
    #[arg(long, value_enum, default_value_t = Watch::Gateway)]
    pub watch: Watch,
}

/// What runs the functions of `cargo xtask dev`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Watch {
    /// The local gateway itself: a changed function answers after a second or two, a compile error at once
    Gateway,
    /// 'cargo lambda watch'
    CargoLambda,
}

/// Options of `cargo xtask psql`.
#[derive(Args)]
pub struct Psql {
    /// The folder of 'cargo xtask dev', target/dev by default
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// What psql is told, such as -c 'select count(*) from tasks'
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Options of `cargo xtask logs`.
#[derive(Args)]
pub struct Logs {
    /// Whose lines
    #[arg(value_enum, default_value_t = Log::Functions)]
    pub log: Log,
    /// The folder of 'cargo xtask dev', target/dev by default
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', default_value_t = 100)]
    pub lines: u32,
}

/// A log of `cargo xtask dev`.
#[derive(Clone, Copy, ValueEnum)]
pub enum Log {
    /// The functions' lines as they write them, JSON
    Functions,
    /// PostgreSQL's
    Postgres,
}

impl Log {
    /// The file, in the folder of `cargo xtask dev`.
    pub fn file(self) -> &'static str {
        match self {
            Self::Functions => "functions.log",
            Self::Postgres => "postgres/postgres.log",
        }
    }
}

/// Options of `cargo xtask deploy`.
#[derive(Args)]
pub struct Deploy {
    /// The environment: a name in samconfig.toml, such as dev, staging or prod
    #[arg(value_name = "ENV")]
    pub environment: String,
    /// Values for samconfig.toml.
    #[command(flatten)]
    pub values: DeployValues,
    /// The file with the environments [default: samconfig.toml of the project]
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Compile nothing, and deploy what 'sam build' made in this folder, such as .aws-sam/build
    #[arg(long, value_name = "FOLDER", conflicts_with = "zig")]
    pub built: Option<PathBuf>,
    /// Compile with cargo-lambda's Zig, so that the programs run on Lambda whatever GLIBC this machine has [default: only
    /// where this machine is not a Linux with the stack's processor]
    #[arg(long)]
    pub zig: bool,
    /// How long a failing call of the deployed API is repeated, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub call_timeout: u64,
    /// Print every command, what would be written to samconfig.toml, and the calls; run nothing and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Values that need not be in samconfig.toml yet. They are written to it.
#[derive(Args)]
pub struct DeployValues {
    /// ARN of the secret with DATABASE_URL and BETTER_AUTH_SECRET, for the functions of the API [default: samconfig.toml's]
    #[arg(long, value_name = "ARN")]
    pub api_secret: Option<String>,
    /// ARN of the secret with DATABASE_URL alone, for health, purge and migrate [default: samconfig.toml's]
    #[arg(long, value_name = "ARN")]
    pub database_secret: Option<String>,
    /// ARN of the secret with DATABASE_URL_UNPOOLED, the owner's URL, for migrate [default: samconfig.toml's]
    #[arg(long, value_name = "ARN")]
    pub owner_secret: Option<String>,
    /// Address of the front end, its BETTER_AUTH_URL [default: samconfig.toml's]
    #[arg(long, value_name = "URL")]
    pub front_end: Option<String>,
    /// The AWS region, which must be that of the secrets [default: samconfig.toml's, else that of the secrets]
    #[arg(long)]
    pub region: Option<String>,
    /// Another parameter of the template for this deployment alone, such as GradualDeployment=false; may be given several times,
    /// and is not written to samconfig.toml
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

/// Options of `cargo xtask generate`.
#[derive(Args)]
pub struct Generate {
    /// Write nothing, and fail where a file is not what would be written
    #[arg(long)]
    pub check: bool,
}

/// Options of `cargo xtask test`.
#[derive(Args)]
pub struct Test {
    /// The parts to run [default: fmt generated clippy dependencies unit api fuzz migrations contract template, for before each push]
    #[arg(value_enum)]
    pub parts: Vec<Part>,
    /// Run every part, as CI does
    #[arg(long, conflicts_with = "parts")]
    pub all: bool,
    /// One part after the other, with all output here, instead of what only reads or compiles beside what starts servers
    #[arg(long)]
    pub one_by_one: bool,
    /// Go on after a part that fails, and list those that failed at the end
    #[arg(long)]
    pub keep_going: bool,
    /// Only tests whose name contains this (for unit, api, migrations, migrate, deploy, sam-build, guard, dev, faults, reference and better-auth)
    #[arg(long)]
    pub filter: Option<String>,
}

/// A part of the tests, with about what it takes on two cores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// The code is formatted (1 s)
    Fmt,
    /// template.yaml and Cargo.toml have the routes of openapi.yaml, as 'cargo xtask generate' writes them (1 s)
    Generated,
    /// No warning of clippy's in what the tests of a push build (1 min, seconds when warm)
    Clippy,
    /// No warning of clippy's in the whole workspace: with the migrate function and the benchmarks (1 min 30 s)
    ClippyAll,
    /// The documentation builds without a warning (15 s)
    Doc,
    /// What the API compiles is free of the migration library and the AWS SDK (1 s)
    Dependencies,
    /// What comes from others: licences, versions, sources, advisories (where there is a network), and that all of it is used (1 min 20 s, seconds once its tools are built)
    SupplyChain,
    /// Unit tests, which need nothing (20 s)
    Unit,
    /// The functions, through a Lambda Runtime API, on PostgreSQL behind PgBouncer (1 min 30 s)
    Api,
    /// The plans of the list's statements among a million tasks (30 s)
    Plans,
    /// 20,000 of the events that 'cargo xtask fuzz' makes (17 s)
    Fuzz,
    /// The migrations, on PostgreSQL (20 s)
    Migrations,
    /// The migrate function, with PostgreSQL, moto's Secrets Manager and a stand-in for CloudFormation; and the benchmarks' units (1 min 20 s)
    Migrate,
    /// openapi.yaml by Spectral's and OWASP's rules (8 s)
    Contract,
    /// template.yaml by the rules of SAM and cfn-lint, and what SAM's translator makes of it (35 s)
    Template,
    /// template.yaml by checkov's rules (5 s)
    Checkov,
    /// 'cargo xtask deploy' with a stand-in for the SAM CLI (17 s)
    Deploy,
    /// 'sam build' (13 min)
    Package,
    /// Every function that 'sam build' made, under AWS's Runtime Interface Emulator (12 s)
    SamBuild,
    /// What 'sam build' made: its size, the files that it opens, and the instructions that a call takes (17 s)
    Guard,
    /// 'cargo xtask dev', from its start to Ctrl-C, with either way to run the functions (2 min 20 s)
    Dev,
    /// What a client meets when the database, its pooler or the network between fails, as a matrix (3 min 20 s)
    Faults,
    /// 'cargo xtask soak --quick': a minute of load and faults, and a count of each write (4 min 10 s)
    Soak,
    /// Thousands of requests generated from openapi.yaml, and a developer in a browser (2 min 30 s)
    Reference,
    /// The real Better Auth in front of the API, on its own tables and on the document's (1 min 10 s)
    BetterAuth,
    /// Four kinds of databases that users have: up, signed in, every route, down, and up again (1 min 10 s)
    Databases,
    /// The API's and the migrations' tests on other versions of PostgreSQL and PgBouncer's other mode (4 min 20 s)
    Versions,
}

impl Part {
    /// As it is written on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub struct Bench {
    /// What is measured
    #[arg(value_enum, default_value_t = Subject::Programs)]
    pub subject: Subject,
    /// A rough answer in about two minutes, once everything has been built
    #[arg(long)]
    pub quick: bool,
    /// Only these programs, beside ours: floor, python, node, rust_monolith
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Measure functions that were built before, too, in a folder like target/release
    #[arg(long, value_name = "FOLDER")]
    pub before: Option<PathBuf>,
    /// Put the plots where docs/performance.md shows them, too
    #[arg(long)]
    pub publish: bool,
}

/// What `cargo xtask bench` measures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// The API beside the others
    Programs,
    /// How its cost grows with the tasks, with the page, and with the processes
    Scale,
}

/// Options of `cargo xtask soak`.
#[derive(Args)]
pub struct Soak {
    /// A minute of load instead of ten, and 20,000 calls of one process instead of 100,000
    #[arg(long)]
    pub quick: bool,
    /// How many processes of the functions to run; 24 for each core by default, 200 at most
    #[arg(long)]
    pub processes: Option<usize>,
}

/// Options of `cargo xtask fuzz`.
#[derive(Args)]
pub struct Fuzz {
    /// How many cases to try
    #[arg(long, default_value_t = 1_000_000, conflicts_with = "quick")]
    pub cases: u64,
    /// Try 20,000 only
    #[arg(long)]
    pub quick: bool,
    /// Makes the same cases again; by default a new number each time, which is printed
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Options of `cargo xtask mutants`.
#[derive(Args)]
pub struct Mutants {
    /// Only mutants in these files
    #[arg(long = "file", default_values_t = ["credential", "session", "tasks"].map(|room| format!("shared/src/{room}.rs")))]
    pub files: Vec<String>,
    /// Only mutants whose name matches this regular expression
    #[arg(long)]
    pub only: Option<String>,
    /// Name the mutants and try none
    #[arg(long)]
    pub list: bool,
}

/// What to do with the migrations. The database is the one that `DATABASE_URL_UNPOOLED` names, as its owner.
#[derive(Subcommand)]
pub enum Migrate {
    /// Apply what is pending; then, when DATABASE_URL names the API's role (tasks_api), set its password to that URL's.
    Up,
    /// Revert the last migration. Tables with rows in them are kept.
    Down {
        /// Revert all migrations after this one; 0 reverts them all.
        #[arg(long, value_name = "VERSION")]
        to: Option<i64>,
    },
    /// Show what is applied, what is pending, and what was changed after it was applied.
    Status,
    /// Say whether columns, indexes, constraints and rights are still what the migrations made of them.
    Check,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
