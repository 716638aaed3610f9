//! Finds PgBouncer on the machine, or installs it. Debian 12's does not track prepared statements, as Neon's does.
use crate::{
    servers::postgres::as_server_user,
    system::{
        process::run_command,
        progress::run_long,
        tools::{find_or_install as find_or_install_tool, lock},
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;
use xtask::{
    apt,
    place::{find_in_path, target},
};

/// The first version that tracks prepared statements.
const FIRST_TRACKING: (u32, u32) = (1, 21);
/// The Debian release with such a version.
const RELEASE: &str = "trixie";
/// PgBouncer, and the libraries that an older release lacks or has in another version.
const PACKAGES: [&str; 7] =
    ["pgbouncer", "libc6", "libcares2", "libevent-2.1-7t64", "libpam0g", "libssl3t64", "libsystemd0"];
/// The keys with which apt verifies Debian's packages.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How PgBouncer is started.
pub struct Program {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Returns a command that runs it as the servers' user, who can reach `folder`.
    pub fn command(&self, folder: &Path) -> Command {
        let mut command = as_server_user(&self.program, folder);
        command.args(&self.arguments);
        command
    }

    /// Whether it runs, and its version tracks prepared statements.
    async fn tracks_statements(&self) -> bool {
        let output = Command::new(&self.program).args(&self.arguments).arg("--version").output().await;
        // "PgBouncer 1.24.1"
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        let mut parts = text.split_whitespace().nth(1).unwrap_or_default().split('.').map(str::parse);
        matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= FIRST_TRACKING)
    }
}

/// Returns PgBouncer of any version, or of one that tracks prepared statements.
pub async fn find_or_install(tracks_statements: bool) -> Result<Program> {
    let find = || find_in_path("pgbouncer");
    if !tracks_statements {
        let program = find_or_install_tool("PgBouncer", find, "pgbouncer").await?;
        return Ok(Program { program, arguments: Vec::new() });
    }
    if let Some(program) = find() {
        let program = Program { program, arguments: Vec::new() };
        if program.tracks_statements().await {
            return Ok(program);
        }
    }
    from_debian().await
}

/// Downloads PgBouncer of a later Debian release into target/, without changing the machine's packages. Its own dynamic
/// linker starts it, because it needs a later GLIBC than the machine may have.
async fn from_debian() -> Result<Program> {
    let can_download = ["apt-get", "dpkg-deb"].iter().all(|tool| find_in_path(tool).is_some());
    if !can_download || !Path::new(KEYRING).exists() {
        let (major, minor) = FIRST_TRACKING;
        bail!(
            "PgBouncer {major}.{minor} or later is missing: install it with 'sudo apt install pgbouncer' on Debian 13 or Ubuntu 24.04, \
             or 'brew install pgbouncer'. On older Debian, 'sudo apt install debian-archive-keyring' is enough"
        );
    }
    let folder = target().join(format!("tools/pgbouncer-{RELEASE}"));
    let installed = folder.join("installed");
    let _lock = lock("pgbouncer")?;
    if !installed.exists() {
        let _ = fs::remove_dir_all(&folder);
        download(&folder).await?;
    }
    let libraries = folder.join(format!("root/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let linker = fs::read_dir(&libraries)?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_string_lossy().starts_with("ld-linux-"))
        .with_context(|| format!("{} has no dynamic linker", libraries.display()))?;
    let arguments = vec!["--library-path".into(), libraries.into(), folder.join("root/usr/sbin/pgbouncer").into()];
    let program = Program { program: linker.path(), arguments };
    ensure!(
        program.tracks_statements().await,
        "PgBouncer of Debian {RELEASE} does not run: remove {}",
        folder.display()
    );
    fs::write(installed, RELEASE)?;
    Ok(program)
}

/// Downloads and unpacks the packages, with apt's lists and cache in `folder`.
async fn download(folder: &Path) -> Result<()> {
    for name in ["lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let sources = folder.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={KEYRING}] http://deb.debian.org/debian {RELEASE} main\n"))?;
    let apt_get = |arguments: &[&str]| {
        let own = |option: &str, path: &Path| format!("-o{option}={}", path.display());
        let mut command = Command::from(apt::apt_get(arguments));
        command.current_dir(folder.join("packages")).args([
            own("Dir::Etc::sourcelist", &sources),
            own("Dir::Etc::sourceparts", Path::new("/dev/null")),
            own("Dir::State::lists", &folder.join("lists")),
            own("Dir::Cache", &folder.join("cache")),
        ]);
        // Only the list of packages. apt's own user may not be able to enter the folder.
        command.args(["-oAcquire::Languages=none", "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"]);
        command.arg("-oAPT::Sandbox::User=root");
        command
    };
    let what = format!("Downloading PgBouncer of Debian {RELEASE} into {}", folder.display());
    run_long(&what, "list-pgbouncer", "seconds", &mut apt_get(&["update"])).await?;
    run_command(&mut apt_get(&[&["download"], &PACKAGES[..]].concat())).await?;
    for package in fs::read_dir(folder.join("packages"))? {
        run_command(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(folder.join("root"))).await?;
    }
    for name in ["lists", "cache", "packages"] {
        fs::remove_dir_all(folder.join(name))?;
    }
    Ok(())
}
