//! The front end of `cargo xtask`. It compiles in seconds, parses the command line, checks what it can before the rest
//! is built, builds `devtools` and replaces itself with it.
use anyhow::{Context as _, Result, bail};
use clap::Parser as _;
use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command as Process, ExitCode},
    time::Instant,
};
use xtask::{
    build,
    cli::{Cli, Command, Dev, Logs, Part, Psql, Watch},
    database::{Given, check_reachable},
    durations::Durations,
    openssl::OpenSsl,
    place::{dev_folder, find_in_path, variable},
    step,
};

fn main() -> ExitCode {
    // On success, exec has replaced the process, so `run` returns only errors.
    let Err(error) = run(&Cli::parse().command);
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

enum Never {}

fn run(command: &Command) -> Result<Never> {
    let builds_functions = match command {
        Command::Psql(options) => return psql(options),
        Command::Logs(options) => return logs(options),
        Command::Dev(options) => check_dev(options)?,
        Command::Migrate(_) => {
            if let Some(url) = variable("DATABASE_URL_UNPOOLED") {
                check_reachable("DATABASE_URL_UNPOOLED", &url)?;
            }
            false
        }
        Command::Test(options) => {
            require_program("node", "Node.js 20 or newer", "nodejs npm")?;
            require_program("python3", "Python 3", "python3 python3-venv")?;
            let packages = [Part::Package, Part::SamBuild, Part::Guard];
            if options.all || packages.iter().any(|part| options.parts.contains(part)) {
                require_release_tools()?;
            }
            false
        }
        Command::Deploy(options) => {
            require_program("python3", "Python 3", "python3 python3-venv")?;
            if options.built.is_none() {
                require_release_tools()?;
            }
            false
        }
        Command::Bench(_) | Command::Sizes => {
            require_release_tools()?;
            false
        }
        _ => false,
    };
    build_devtools(matches!(command, Command::Bench(_)), builds_functions)?;
    let program = std::env::current_exe()?.with_file_name("devtools");
    let error = Process::new(&program).args(std::env::args_os().skip(1)).exec();
    Err(error).with_context(|| format!("{} cannot be started", program.display()))
}

/// Fails if a program is missing. The error names the command that installs it.
fn require_program(program: &str, what: &str, package: &str) -> Result<()> {
    if find_in_path(program).is_none() {
        bail!("{program} is missing: install {what} with 'sudo apt install {package}' or Homebrew");
    }
    Ok(())
}

/// Fails if a release build is not possible: it compiles OpenSSL from source, which needs perl and make.
fn require_release_tools() -> Result<()> {
    for program in ["perl", "make"] {
        require_program(
            program,
            &format!("{program}, which a release needs to compile OpenSSL from source,"),
            program,
        )?;
    }
    Ok(())
}

/// Checks what `cargo xtask dev` needs. Returns whether to build the functions together with the tools. With the
/// developer's own database they are built later, after `devtools` has tried its passwords.
fn check_dev(options: &Dev) -> Result<bool> {
    let folder = dev_folder(options.folder.as_deref())?;
    if options.port != 0 {
        for port in [Some(options.port), options.sign_in_port(options.port)].into_iter().flatten() {
            if TcpListener::bind(("127.0.0.1", port)).is_err() {
                bail!("port {port} is taken: choose another with --port, or a free one with --port 0");
            }
        }
    }
    if options.better_auth || options.front_end {
        require_program("node", "Node.js 20 or newer", "nodejs npm")?;
    }
    if options.watch == Watch::CargoLambda && find_in_path("cargo-lambda").is_none() {
        require_program("python3", "Python 3", "python3 python3-venv")?;
    }
    let given = Given::find(&folder.join("postgres"))?;
    match &given {
        Some(given) => given.check_hosts()?,
        None => xtask::postgres::check(options.postgres)?,
    }
    Ok(given.is_none())
}

/// Builds the package `devtools`, with the benchmarks and functions on request.
fn build_devtools(with_bench: bool, with_functions: bool) -> Result<()> {
    const DURATION: &str = "build";
    let openssl = OpenSsl::find_or_install()?;
    let is_first = !std::env::current_exe()?.with_file_name("devtools").exists();
    if is_first {
        let usual = "about 2 minutes on two cores";
        let expectation = Durations::read().expectation(DURATION, usual);
        step(format!("Building ({expectation}; later only what has changed)"));
    }
    let mut command = build::cargo_with("build", openssl);
    command.args(["--bin", "devtools"]);
    if with_functions {
        for function in build::functions()? {
            command.args(["--bin", &function]);
        }
    }
    if with_bench {
        command.args(["--features", "devtools/bench"]);
    }
    let began = Instant::now();
    let status = command.status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("the developer's tools do not compile");
    }
    if is_first {
        Durations::record(DURATION, began.elapsed());
    }
    Ok(())
}

/// Replaces this process with psql on the database of a running `cargo xtask dev`.
fn psql(options: &Psql) -> Result<Never> {
    let folder = dev_folder(options.folder.as_deref())?;
    let url =
        exported_value(&folder.join("env"), "TASKS_DATABASE_URL_UNPOOLED").with_context(|| not_running(&folder))?;
    let psql = find_in_path("psql")
        .context("psql is missing: install it with 'sudo apt install postgresql-client' or 'brew install libpq'")?;
    let error = Process::new(psql).arg(url).args(&options.arguments).exec();
    Err(error).context("psql cannot be started")
}

/// Replaces this process with `tail` on a log of `cargo xtask dev`.
fn logs(options: &Logs) -> Result<Never> {
    let folder = dev_folder(options.folder.as_deref())?;
    let file = folder.join(options.log.file());
    if !file.exists() {
        bail!("{} is missing: {}", file.display(), not_running(&folder));
    }
    let mut tail = Process::new("tail");
    tail.args(["-n", &options.lines.to_string()]);
    if options.follow {
        // -F follows the name, not the open file: a new run creates a new file.
        tail.arg("-F");
    }
    let error = tail.arg(file).exec();
    Err(error).context("tail cannot be started")
}

fn not_running(folder: &Path) -> String {
    format!("no 'cargo xtask dev' runs in {} (start it, or name its folder by --folder)", folder.display())
}

/// Returns a variable's value from a file of `export NAME='value'` lines, as written by `cargo xtask dev`.
fn exported_value(file: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.strip_prefix('\'')?.strip_suffix('\'')?.replace(r"'\''", "'"))
}
