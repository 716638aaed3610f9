//! Finds or installs tools.
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
    place::{find_in_path, root, target},
};

/// The version that the local server was tested with.
const CARGO_LAMBDA: &str = "cargo-lambda==1.9.2";
const CARGO_LAMBDA_ALONE: Environment = Environment { name: "cargo-lambda", packages: &["--no-deps", CARGO_LAMBDA] };
/// cargo-lambda with the Zig compiler, which can build for another processor, system or GLIBC than this machine's.
const CARGO_LAMBDA_WITH_ZIG: Environment = Environment { name: "cargo-lambda-zig", packages: &[CARGO_LAMBDA] };

/// Returns a cargo command in the project's folder.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::from(xtask::build::plain_cargo());
    command.args(args);
    command
}

/// Installs cargo-lambda without its dependencies: they include the Zig compiler, which is only needed to
/// cross-compile.
pub async fn cargo_lambda() -> Result<PathBuf> {
    Ok(CARGO_LAMBDA_ALONE.install().await?.join("cargo-lambda"))
}

/// Installs PyPI packages into a separate virtual environment under target/, if needed. Returns the folder of its
/// programs. `packages` are pip's arguments.
pub async fn from_pypi(name: &str, packages: &[&str]) -> Result<PathBuf> {
    Environment { name, packages }.install().await
}

/// A Python virtual environment under target/ with packages from PyPI.
#[derive(Clone, Copy)]
pub struct Environment<'n> {
    /// Name of the environment's folder.
    pub name: &'n str,
    /// Arguments of `pip install`.
    pub packages: &'n [&'n str],
}

impl Environment<'_> {
    fn folder(&self) -> PathBuf {
        target().join("tools").join(self.name)
    }

    /// The folder of the programs. It need not exist yet.
    pub fn programs(&self) -> PathBuf {
        self.folder().join("bin")
    }

    /// Returns the commands that install the environment (`venv` and `pip`), or `None` if it is installed.
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

    /// Installs the environment if needed, and returns the folder of its programs.
    pub async fn install(&self) -> Result<PathBuf> {
        let _lock = lock(self.name)?;
        let Some([mut venv, mut pip]) = self.installation() else { return Ok(self.programs()) };
        find_in_path("python3").context(
            "python3 is missing: install it with 'apt install python3 python3-venv' or 'brew install python'",
        )?;
        let wanted = self.packages.join(" ");
        run_command(&mut venv).await.context(
            "python3 cannot create a virtual environment: 'apt install python3-venv' installs what it needs",
        )?;
        let what = format!("Installing {wanted} from PyPI into {}", self.folder().display());
        run_long(&what, &format!("install-{}", self.name), "up to a minute", &mut pip).await?;
        std::fs::write(self.folder().join("installed"), wanted)?;
        Ok(self.programs())
    }
}

/// A program of a Python package, from the PATH or from an environment under target/.
pub struct PythonTool {
    /// Path of the program. The file need not exist before `install`.
    pub program: PathBuf,
    /// The environment to install, or `None` if the program is on the PATH.
    pub environment: Option<Environment<'static>>,
}

impl PythonTool {
    /// Finds the program on the PATH, else uses the one of `environment`.
    pub fn find(name: &str, environment: Environment<'static>) -> Self {
        match find_in_path(name) {
            Some(program) => Self { program, environment: None },
            None => Self::in_environment(name, environment),
        }
    }

    fn in_environment(name: &str, environment: Environment<'static>) -> Self {
        Self { program: environment.programs().join(name), environment: Some(environment) }
    }

    /// cargo-lambda: with Zig from PyPI, else from the PATH if it is there.
    pub fn cargo_lambda(with_zig: bool) -> Self {
        const NAME: &str = "cargo-lambda";
        if with_zig { Self::in_environment(NAME, CARGO_LAMBDA_WITH_ZIG) } else { Self::find(NAME, CARGO_LAMBDA_ALONE) }
    }

    /// Installs the program if needed.
    pub async fn install(&self) -> Result<()> {
        if let Some(environment) = &self.environment {
            environment.install().await?;
        }
        Ok(())
    }
}

/// Builds a cargo tool (`name@version`) from crates.io into its own folder under target/, if needed. Returns the
/// program's path.
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
    // A debug build: the tool runs only for seconds, so building quickly matters more.
    let mut install = cargo(&["install", "--debug", "--locked", package, "--root"]);
    install.arg(&folder).env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_TARGET_DIR", folder.join("target"));
    run_long(&what, &format!("install-{name}"), "minutes", &mut install).await?;
    let _ = std::fs::remove_dir_all(folder.join("target"));
    std::fs::write(installed, package)?;
    Ok(program)
}

/// Copies files of the project, a package-lock.json among them, into the folder `name` of target/tools, and installs the
/// packages there, if needed. Returns the folder.
pub async fn copied_from_npm(what: &str, name: &str, files: &[&str]) -> Result<PathBuf> {
    let folder = target().join("tools").join(name);
    std::fs::create_dir_all(&folder)?;
    let _lock = lock(name)?;
    for file in files {
        let source = root().join(file);
        std::fs::copy(&source, folder.join(source.file_name().unwrap_or_default()))?;
    }
    from_npm(what, &folder).await?;
    Ok(folder)
}

/// Installs the packages of a folder's package-lock.json into that folder, if needed.
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

/// Finds Node.js's `node` or `npm`.
pub fn node(program: &str) -> Result<PathBuf> {
    find_in_path(program).with_context(|| {
        format!(
            "{program} is missing: install Node.js 20 or newer with 'apt install nodejs npm' or 'brew install node'"
        )
    })
}

/// Locks a folder with servers for this process: a second process would stop the first one's servers. The lock lasts as
/// long as the returned file is open, so it ends with the process. `advice` is part of the second process's error.
pub fn lock_folder(folder: &Path, advice: &str) -> Result<File> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("lock");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            bail!("{} is in use by {}: {advice}", folder.display(), holder.trim());
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

/// Locks a tool, so that no two of our commands install it at the same time.
pub fn lock(tool: &str) -> Result<File> {
    let folder = target().join("tools");
    std::fs::create_dir_all(&folder)?;
    let file = File::create(folder.join(format!("{tool}.lock")))?;
    file.lock()?;
    Ok(file)
}

/// Finds a program, or installs it with apt if possible. Else the error explains how to install it.
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

/// Returns a port that nothing listens on. It is below the range of outgoing connections, one of which could otherwise
/// take the port before the server does.
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
