//! Getting the tools that the machine lacks.
use crate::system::{process::run_command, progress::run_long};
use anyhow::{Context as _, Result, bail};
use std::{
    fs::{File, TryLockError},
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::process::Command;
use xtask::{
    apt,
    place::{find_in_path, target},
};

/// The version that the local server was tried with.
const CARGO_LAMBDA: &str = "cargo-lambda==1.9.2";
const CARGO_LAMBDA_ALONE: Environment = Environment { name: "cargo-lambda", packages: &["--no-deps", CARGO_LAMBDA] };
/// cargo-lambda with the Zig compiler, which builds for another processor, system or GLIBC than this machine's.
const CARGO_LAMBDA_WITH_ZIG: Environment = Environment { name: "cargo-lambda-zig", packages: &[CARGO_LAMBDA] };

/// A cargo command in the project's folder.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::from(xtask::build::plain_cargo());
    command.args(args);
    command
}

/// cargo-lambda, without its dependencies: it would bring the Zig compiler, which only cross-compiling needs.
pub async fn cargo_lambda() -> Result<PathBuf> {
    Ok(CARGO_LAMBDA_ALONE.install().await?.join("cargo-lambda"))
}

/// The folder of the programs of some PyPI packages, in an environment of their own under target/; installed where they are
/// not there yet. `packages` are what pip is told.
pub async fn from_pypi(name: &str, packages: &[&str]) -> Result<PathBuf> {
    Environment { name, packages }.install().await
}

/// Packages of PyPI, for an environment of their own under target/.
#[derive(Clone, Copy)]
pub struct Environment<'n> {
    /// The name of its folder.
    pub name: &'n str,
    /// What pip is told.
    pub packages: &'n [&'n str],
}

impl Environment<'_> {
    fn folder(&self) -> PathBuf {
        target().join("tools").join(self.name)
    }

    /// The folder of the programs, which need not be there yet.
    pub fn programs(&self) -> PathBuf {
        self.folder().join("bin")
    }

    /// The commands that install it, `venv` and `pip`; nothing where it is installed.
    pub fn installation(&self) -> Option<[Command; 2]> {
        let installed = std::fs::read_to_string(self.folder().join("installed"));
        if installed.is_ok_and(|packages| packages == self.packages.join(" ")) {
            return None;
        }
        let mut venv = Command::new(find_in_path("python3").unwrap_or_else(|| "python3".into()));
        venv.args(["-m", "venv"]).arg(self.folder());
        let mut pip = Command::new(self.programs().join("pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(self.packages);
        Some([venv, pip])
    }

    /// Installs it where it is not installed, and returns the folder of its programs.
    pub async fn install(&self) -> Result<PathBuf> {
        let _lock = lock(self.name)?;
        let Some([mut venv, mut pip]) = self.installation() else { return Ok(self.programs()) };
        find_in_path("python3").context(
            "python3 is missing: install it with 'apt install python3 python3-venv' or 'brew install python'",
        )?;
        let wanted = self.packages.join(" ");
        run_command(&mut venv)
            .await
            .context("python3 cannot make an environment: 'apt install python3-venv' gives it what it needs")?;
        let what = format!("Installing {wanted} from PyPI into {}", self.folder().display());
        run_long(&what, &format!("install-{}", self.name), "up to a minute", &mut pip).await?;
        std::fs::write(self.folder().join("installed"), wanted)?;
        Ok(self.programs())
    }
}

/// A program of a Python package: the machine's own, or one under target/.
pub struct PythonTool {
    /// The program's file, which need not be there before `install`.
    pub program: PathBuf,
    /// Where it comes from, if it is not the machine's.
    pub environment: Option<Environment<'static>>,
}

impl PythonTool {
    /// The program as the shell finds it, else the one of an environment.
    pub fn find(name: &str, environment: Environment<'static>) -> Self {
        match find_in_path(name) {
            Some(program) => Self { program, environment: None },
            None => Self::of(name, environment),
        }
    }

    /// The program of an environment.
    fn of(name: &str, environment: Environment<'static>) -> Self {
        Self { program: environment.programs().join(name), environment: Some(environment) }
    }

    /// cargo-lambda: the machine's own for its own compiler, and PyPI's with Zig.
    pub fn cargo_lambda(with_zig: bool) -> Self {
        const NAME: &str = "cargo-lambda";
        if with_zig { Self::of(NAME, CARGO_LAMBDA_WITH_ZIG) } else { Self::find(NAME, CARGO_LAMBDA_ALONE) }
    }

    /// Installs the program where it is missing.
    pub async fn install(&self) -> Result<()> {
        if let Some(environment) = &self.environment {
            environment.install().await?;
        }
        Ok(())
    }
}

/// A cargo tool of crates.io, `name@version`, built into a folder of its own under target/ where it is not there yet.
pub async fn from_crates_io(package: &str) -> Result<PathBuf> {
    let name = package.split('@').next().unwrap_or(package);
    let folder = target().join("tools").join(name);
    let installed = folder.join("installed");
    let program = folder.join("bin").join(name);
    let _lock = lock(name)?;
    if std::fs::read_to_string(&installed).is_ok_and(|it| it == package) {
        return Ok(program);
    }
    let what = format!("Building {package} of crates.io into {}", folder.display());
    // Quickly built rather than fast: it runs for seconds.
    let mut install = cargo(&["install", "--debug", "--locked", package, "--root"]);
    install.arg(&folder).env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_TARGET_DIR", folder.join("target"));
    run_long(&what, &format!("install-{name}"), "minutes", &mut install).await?;
    let _ = std::fs::remove_dir_all(folder.join("target"));
    std::fs::write(installed, package)?;
    Ok(program)
}

/// Installs what the package-lock.json of a folder names into that folder, unless it is there already.
pub async fn from_npm(what: &str, folder: &Path) -> Result<()> {
    let versions = std::fs::read(folder.join("package-lock.json"))?;
    let installed = folder.join("node_modules/installed");
    if std::fs::read(&installed).ok().as_ref() == Some(&versions) {
        return Ok(());
    }
    let args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    let name = format!("install-{}", what.to_lowercase().replace(' ', "-"));
    let what = format!("Installing {what} from npm into {}", folder.display());
    run_long(&what, &name, "up to a minute", Command::new(node("npm")?).args(args).current_dir(folder)).await?;
    Ok(std::fs::write(installed, versions)?)
}

/// Node.js's `node` or `npm`.
pub fn node(program: &str) -> Result<PathBuf> {
    find_in_path(program).with_context(|| {
        format!(
            "{program} is missing: install Node.js 20 or newer with 'apt install nodejs npm' or 'brew install node'"
        )
    })
}

/// Takes a folder with servers for this process: a second one would end the first one's servers. The lock is the file's that
/// is returned, and goes with the process that holds it, however that ends. `way_out` is what the second one is told.
pub fn hold_folder(folder: &Path, way_out: &str) -> Result<File> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("lock");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            bail!("{} is in use by {}: {way_out}", folder.display(), holder.trim());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
        }
    }
    file.set_len(0)?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    write!(file, "'cargo xtask {}' (process {})", arguments.join(" "), std::process::id())?;
    Ok(file)
}

/// Waits until no other command of ours installs the same tool.
pub fn lock(tool: &str) -> Result<File> {
    let folder = target().join("tools");
    std::fs::create_dir_all(&folder)?;
    let file = File::create(folder.join(format!("{tool}.lock")))?;
    file.lock()?;
    Ok(file)
}

/// A program of the machine's, installed by apt where that is possible; else the error says how to install it.
pub async fn find_or_install(what: &str, find: impl Fn() -> Option<PathBuf>, package: &str) -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    if !apt::can_install() {
        bail!("{what} is missing: install it with 'sudo apt install {package}' or 'brew install {package}'");
    }
    let mut update = apt::apt_get(&["update"]).into();
    run_long("Reading apt's package lists", "apt-update", "seconds", &mut update).await?;
    let what_is_done = format!("Installing {what} (apt-get install {package})");
    let mut install = apt::apt_get(&[&apt::INSTALL[..], &[package]].concat()).into();
    run_long(&what_is_done, &format!("install-{package}"), "up to a minute", &mut install).await?;
    find().with_context(|| format!("{what} is still missing after 'apt-get install {package}'"))
}

/// A port of this machine that nothing listens on, from below those that outgoing connections take: one of them could
/// take it before its server does.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos() ^ std::process::id();
    let start = u16::try_from(seed % u32::from(COUNT))?;
    (0..COUNT)
        .map(|step| FIRST + (start + step) % COUNT)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("every port from 20000 to 29999 is taken")
}
