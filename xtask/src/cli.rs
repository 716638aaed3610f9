//! The command line: commands, options and help texts. The package `devtools` implements the commands.
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Developer commands of this project
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the API on this machine, with its own PostgreSQL or the database in DATABASE_URL and DATABASE_URL_UNPOOLED
    Dev(Dev),
    /// Open psql on the database of a running 'cargo xtask dev', as the owner role
    Psql(Psql),
    /// Show the log of the functions, or of PostgreSQL, of 'cargo xtask dev'
    Logs(Logs),
    /// Build the functions, deploy them to AWS with the SAM CLI, and call the deployed API
    Deploy(Deploy),
    /// Run the tests: those to pass before a push, all of them, or single parts
    Test(Test),
    /// Compare the API's speed with equivalent programs in Python, Node.js and Rust, and with a hand-written minimum
    /// (Linux only)
    Bench(Bench),
    /// Generate from the routes of openapi.yaml: functions, limits and dashboard in template.yaml, and the router in
    /// Cargo.toml
    Generate(Generate),
    /// Run many processes under load from many clients while servers fail, and check the outcome of each write
    Soak(Soak),
    /// Send a million malformed or unusual events to the functions: none may cause a 5xx or a panic
    Fuzz(Fuzz),
    /// Run mutation tests on the session check and the task statements, and list the changes that no test notices
    Mutants(Mutants),
    /// Write lists of the crates in the deployed programs, in CycloneDX's format
    Sbom(Sbom),
    /// Build the functions for release and print the size, GLIBC version and shared libraries of each
    Sizes,
    /// Apply, revert or inspect database migrations
    #[command(subcommand)]
    Migrate(Migrate),
}

/// Default port of the API.
const API_PORT: u16 = 9000;
/// Default port of Next.js.
const FRONT_END_PORT: u16 = 3000;

#[derive(Args)]
pub struct Dev {
    /// Port of the API on 127.0.0.1; 0 chooses a free one
    #[arg(long, default_value_t = API_PORT)]
    pub port: u16,
    /// Also run the front end in examples/nextjs, on port 3000; with --port, on the port after the API's
    #[arg(long)]
    pub front_end: bool,
    /// Also run Better Auth without a front end, on the port after the API's: what the tests sign in with
    #[arg(long, conflicts_with = "front_end")]
    pub better_auth: bool,
    /// Major version of PostgreSQL, installed or from npm [default: any]
    #[arg(long, value_name = "MAJOR")]
    pub postgres: Option<u32>,
    /// Folder for the database and the env file [default: target/dev]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Delete the database of an earlier run, with all its data, and start again. Never touches the database in
    /// DATABASE_URL
    #[arg(long)]
    pub reset: bool,
    /// Add two users with sessions and tasks to the database in DATABASE_URL. The command's own database always has
    /// them
    #[arg(long)]
    pub seed: bool,
    #[command(flatten)]
    pub auth: AuthTables,
    /// Print the functions' log lines as JSON, unchanged, instead of one readable line per call
    #[arg(long)]
    pub json: bool,
    /// What runs the functions and rebuilds them after a change
    #[arg(long, value_enum, default_value_t = Watch::Gateway)]
    pub watch: Watch,
}

impl Dev {
    /// The port of what people sign in to, if it is started: the front end, or Better Auth alone.
    pub fn sign_in_port(&self, api_port: u16) -> Option<u16> {
        match (self.front_end, self.better_auth) {
            (true, _) if api_port == API_PORT => Some(FRONT_END_PORT),
            (false, false) => None,
            _ => api_port.checked_add(1),
        }
    }
}

/// Which of Better Auth's tables the migrations make.
#[derive(Args)]
pub struct AuthTables {
    /// Better Auth's tables to make if the database has none: those of the schema specification, those of Better Auth's
    /// own migration, or none, if the front end makes them. AUTH_SCHEMA names the schema to search, if it is not public or
    /// neon_auth [default: schema, unless a table looks like Better Auth's]
    #[arg(long, value_name = "WHICH", value_parser = ["schema", "better-auth", "none"])]
    pub auth_tables: Option<String>,
}

/// What runs the functions of `cargo xtask dev`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Watch {
    /// The local gateway itself: a changed function answers after a second or two, and a compile error is reported at
    /// once
    Gateway,
    /// 'cargo lambda watch'
    CargoLambda,
}

#[derive(Args)]
pub struct Psql {
    /// Folder of 'cargo xtask dev' [default: target/dev]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Arguments for psql, such as -c 'select count(*) from tasks'
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

#[derive(Args)]
pub struct Logs {
    /// Which log to show
    #[arg(value_enum, default_value_t = Log::Functions)]
    pub log: Log,
    /// Folder of 'cargo xtask dev' [default: target/dev]
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Keep printing new lines
    #[arg(long, short)]
    pub follow: bool,
    /// Number of lines to show from the end of the log
    #[arg(long, short = 'n', default_value_t = 100)]
    pub lines: u32,
}

/// A log of `cargo xtask dev`.
#[derive(Clone, Copy, ValueEnum)]
pub enum Log {
    /// The functions' log lines, in JSON
    Functions,
    /// PostgreSQL's server log
    Postgres,
}

impl Log {
    /// The log file, relative to the folder of `cargo xtask dev`.
    pub fn file(self) -> &'static str {
        match self {
            Self::Functions => "functions.log",
            Self::Postgres => "postgres/postgres.log",
        }
    }
}

#[derive(Args)]
pub struct Deploy {
    /// Environment in samconfig.toml, such as dev, staging or prod
    #[arg(value_name = "ENV")]
    pub environment: String,
    #[command(flatten)]
    pub values: DeployValues,
    /// File with the environments [default: the project's samconfig.toml]
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Deploy the output of an earlier 'sam build' in this folder, such as .aws-sam/build, and compile nothing
    #[arg(long, value_name = "FOLDER", conflicts_with = "zig")]
    pub built: Option<PathBuf>,
    /// Compile with cargo-lambda's Zig, so that the binaries run on Lambda regardless of this machine's GLIBC [default:
    /// only if this machine does not run Linux on the stack's processor architecture]
    #[arg(long)]
    pub zig: bool,
    /// Seconds to keep retrying a failing call of the deployed API
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub call_timeout: u64,
    /// Only print the commands, the changes to samconfig.toml and the calls; run and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

// Values that samconfig.toml may still lack. All but `set` are written to it.
#[derive(Args)]
pub struct DeployValues {
    /// ARN of the secret with DATABASE_URL and BETTER_AUTH_SECRET, for the API functions [default: from samconfig.toml]
    #[arg(long, value_name = "ARN")]
    pub api_secret: Option<String>,
    /// ARN of the secret with only DATABASE_URL, for health, purge and migrate [default: from samconfig.toml]
    #[arg(long, value_name = "ARN")]
    pub database_secret: Option<String>,
    /// ARN of the secret with DATABASE_URL_UNPOOLED, the owner's URL, for migrate [default: from samconfig.toml]
    #[arg(long, value_name = "ARN")]
    pub owner_secret: Option<String>,
    /// URL of the front end, which is its BETTER_AUTH_URL [default: from samconfig.toml]
    #[arg(long, value_name = "URL")]
    pub front_end: Option<String>,
    /// AWS region; must be the region of the secrets [default: from samconfig.toml, otherwise the region of the
    /// secrets]
    #[arg(long)]
    pub region: Option<String>,
    /// Another template parameter, such as GradualDeployment=false, for this deployment only: it is not written to
    /// samconfig.toml. May be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args)]
pub struct Sbom {
    /// Folder for the lists
    #[arg(long, value_name = "FOLDER", default_value = "target/sbom")]
    pub folder: PathBuf,
}

#[derive(Args)]
pub struct Generate {
    /// Write nothing, and fail if a file is out of date
    #[arg(long)]
    pub check: bool,
}

#[derive(Args)]
pub struct Test {
    /// Parts to run [default: the parts to pass before each push: fmt generated clippy dependencies unit api fuzz
    /// migrations contract template]
    #[arg(value_enum)]
    pub parts: Vec<Part>,
    /// Run every part except arm64 and sam-local, as CI does
    #[arg(long, conflicts_with = "parts")]
    pub all: bool,
    /// Run one part at a time and print all output here. By default, parts that only read or compile run in parallel
    /// with parts that start servers, with their output in a file
    #[arg(long)]
    pub one_by_one: bool,
    /// Continue after a part fails, and list the failed parts at the end
    #[arg(long)]
    pub keep_going: bool,
    /// Run only tests whose name contains this (for unit, api, migrations, migrate, deploy, arm64, sam-build, sam-local,
    /// guard, dev, faults, reference, better-auth and versions)
    #[arg(long)]
    pub filter: Option<String>,
    /// Run faults and soak with PREPARED_STATEMENTS=true, behind a PgBouncer that tracks the statements' names: the machine's,
    /// or Debian 13's
    #[arg(long)]
    pub prepared: bool,
}

/// A part of the tests. Each help text ends with the approximate duration on two cores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// The code is formatted (1 s)
    Fmt,
    /// template.yaml and Cargo.toml match openapi.yaml: 'cargo xtask generate' would change nothing (1 s)
    Generated,
    /// No clippy warnings in the packages that the tests before a push build (1 min, seconds when warm)
    Clippy,
    /// No clippy warnings in the whole workspace, including the migrate function and the benchmarks (1 min 30 s)
    ClippyAll,
    /// The Rust documentation builds without warnings (15 s)
    Doc,
    /// The API depends neither on the migration library nor on the AWS SDK (1 s)
    Dependencies,
    /// Third-party crates: licences, versions, sources, advisories (if there is a network), no unused dependency, and the lists
    /// of components; and the workflows (1
    /// min 20 s, seconds once its tools are built)
    SupplyChain,
    /// Unit tests, without servers (20 s)
    Unit,
    /// The functions, run through a Lambda Runtime API, on PostgreSQL behind PgBouncer (1 min 30 s)
    Api,
    /// The query plans of the task list with a million tasks in the table (30 s)
    Plans,
    /// 20,000 of the events of 'cargo xtask fuzz' (17 s)
    Fuzz,
    /// The migrations, on PostgreSQL (20 s)
    Migrations,
    /// The migrate function, with PostgreSQL, moto's Secrets Manager and a fake CloudFormation; and the benchmarks'
    /// unit tests (1 min 20 s)
    Migrate,
    /// openapi.yaml, checked with Spectral's and OWASP's rules (8 s)
    Contract,
    /// template.yaml, checked with SAM's and cfn-lint's rules, and the output of SAM's translator (35 s)
    Template,
    /// template.yaml, checked with checkov's rules (5 s)
    Checkov,
    /// 'cargo xtask deploy' with a fake SAM CLI; the scripts for old versions and previews, with moto and a fake Neon (30 s)
    Deploy,
    /// 'sam build' (13 min)
    Package,
    /// Every function, built for arm64 with Zig, and the parts api and migrate with them under qemu-user. Runs only if it is
    /// named: it needs root on Debian or Ubuntu (over an hour, 10 min once they are built)
    Arm64,
    /// Every function from 'sam build', under AWS's Runtime Interface Emulator (12 s)
    SamBuild,
    /// Tests of the API over HTTP, with every function from 'sam build' in AWS's 'sam local start-api'. Only if it is named:
    /// needs Docker, or root on Linux to install and start it (3 min 40 s, after 'sam build')
    SamLocal,
    /// Limits on the output of 'sam build': package size, files opened, and instructions per call (17 s)
    Guard,
    /// 'cargo xtask dev', from start to Ctrl-C, with each value of --watch (2 min 20 s)
    Dev,
    /// The client's view of failures of the database, the pooler or the network between them, as a matrix (3 min 20 s)
    Faults,
    /// 'cargo xtask soak --quick': a minute of load and faults, and a check of each write (4 min 10 s)
    Soak,
    /// Thousands of requests generated from openapi.yaml, and the API reference in a browser (2 min 30 s)
    Reference,
    /// examples/nextjs: its types, TypeScript, ESLint, 'next build', and every function in a browser, with each credential
    /// (6 min)
    FrontEnd,
    /// The real Better Auth in front of the API, on its own tables and on those of the schema specification (1 min 10
    /// s)
    BetterAuth,
    /// Thirteen kinds of databases: migrate up, sign in, call every route, migrate down and up again; and what Drizzle's and
    /// Prisma's 'push' does to them (2 min 10 s)
    Databases,
    /// The API and migration tests on other PostgreSQL versions and with PgBouncer's session pooling; and a theft from
    /// prepared statements, behind a PgBouncer that tracks them (4 min 30 s)
    Versions,
}

impl Part {
    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[derive(Args)]
pub struct Bench {
    /// What to measure
    #[arg(value_enum, default_value_t = Subject::Programs)]
    pub subject: Subject,
    /// Measure less, for a rough result in about three minutes once everything is built
    #[arg(long)]
    pub quick: bool,
    /// Compare only with these programs: ours_prepared, floor, floor_prepared, python, node, rust_monolith
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Also measure functions from an earlier build, in a folder like target/release
    #[arg(long, value_name = "FOLDER")]
    pub before: Option<PathBuf>,
    /// Write the tables into docs/performance.md, and the plots to docs/performance instead of target/bench
    #[arg(long)]
    pub publish: bool,
}

/// What `cargo xtask bench` measures.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Subject {
    /// The API, compared with the other programs
    Programs,
    /// The API's cost by number of tasks, page size and number of processes
    Scale,
    /// A list by JWT beside one by the session's token
    Credentials,
    /// A hundred operations in one batch beside a hundred calls
    Batch,
    /// What noting changes for sync costs each write
    Changes,
    /// One person's lists while another person searches among many large tasks
    Fair,
}

#[derive(Args)]
pub struct Soak {
    /// One minute of load instead of ten, and 20,000 calls to one process instead of 100,000
    #[arg(long)]
    pub quick: bool,
    /// Number of function processes [default: 24 per core, at most 200]
    #[arg(long)]
    pub processes: Option<usize>,
    /// Run the functions with PREPARED_STATEMENTS=true, behind a PgBouncer that tracks the statements' names: the machine's, or
    /// Debian 13's
    #[arg(long)]
    pub prepared: bool,
}

#[derive(Args)]
pub struct Fuzz {
    /// Number of cases to try
    #[arg(long, default_value_t = 1_000_000, conflicts_with = "quick")]
    pub cases: u64,
    /// Try only 20,000 cases
    #[arg(long)]
    pub quick: bool,
    /// Seed of an earlier run, to repeat its cases [default: a new one each time, which is printed]
    #[arg(long)]
    pub seed: Option<u64>,
}

#[derive(Args)]
pub struct Mutants {
    /// Try only mutants in these files
    #[arg(long = "file", default_values_t = ["credential", "session", "tasks"].map(|name| format!("shared/src/{name}.rs")))]
    pub files: Vec<String>,
    /// Try only mutants whose name matches this regular expression
    #[arg(long)]
    pub only: Option<String>,
    /// List the mutants and try none
    #[arg(long)]
    pub list: bool,
}

/// A migration command. It connects to the database in `DATABASE_URL_UNPOOLED` as the owner role.
#[derive(Subcommand)]
pub enum Migrate {
    /// Apply pending migrations. Then, if DATABASE_URL has the API's role (tasks_api), set its password to the one in
    /// that URL
    Up {
        #[command(flatten)]
        auth: AuthTables,
        /// Take the rights that other roles have on tables that were there before, and switch row-level security on for
        /// these, too. A front end that connects as such a role can no longer sign anybody in
        #[arg(long)]
        rls: bool,
    },
    /// Revert the last migration. Tables that contain rows are kept
    Down {
        /// Revert all migrations after this one; 0 reverts all
        #[arg(long, value_name = "VERSION")]
        to: Option<i64>,
    },
    /// Show which migrations are applied, pending, or changed after they were applied
    Status,
    /// Check whether columns, indexes, constraints and privileges still match the migrations, and list every role that can
    /// reach sessions, passwords or signing keys
    Check {
        /// Print one JSON object, with the lists 'differences' and 'notes'
        #[arg(long)]
        json: bool,
    },
    /// Begin another history for GET /api/tasks/changes, so that its clients start over. Run it after the database was set
    /// back to an earlier moment, before the API serves it again
    NewEpoch,
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
