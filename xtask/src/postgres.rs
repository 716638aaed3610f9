//! Finds PostgreSQL's server programs on this machine.
use crate::place::find_in_path;
use anyhow::{Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Returns the folder of `postgres`, `initdb` and `pg_ctl`, for one major version or any. Looks in PATH first, then in
/// the folders of Debian and Homebrew, newest version first.
pub fn installed(major: Option<u32>) -> Option<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix) in
        [("/usr/lib/postgresql", ""), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local/opt", "postgresql@")]
    {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(version) = name.strip_prefix(prefix).and_then(|version| version.parse().ok()) {
                folders.push((version, entry.path().join("bin")));
            }
        }
    }
    folders.sort();
    let on_path = find_in_path("initdb").and_then(|initdb| Some(initdb.canonicalize().ok()?.parent()?.to_owned()));
    let on_path = on_path.and_then(|folder| Some((major_of(&folder)?, folder)));
    on_path
        .into_iter()
        .chain(folders.into_iter().rev())
        .filter(|(version, _)| major.is_none_or(|major| major == *version))
        .map(|(_, folder)| folder)
        .find(|folder| folder.join("postgres").is_file() && folder.join("initdb").is_file())
}

/// Returns the major version that `postgres --version` in a folder reports.
pub fn major_of(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    text.split_whitespace().nth(2)?.split('.').next()?.parse().ok()
}

/// Fails if PostgreSQL is not installed and cannot be installed from npm either.
pub fn check(major: Option<u32>) -> Result<()> {
    let can_install = ["npm", "node"].iter().all(|program| find_in_path(program).is_some());
    if can_install || installed(major).is_some() {
        return Ok(());
    }
    let version = major.map(|major| format!(" {major}")).unwrap_or_default();
    bail!(
        "PostgreSQL{version} is missing: install it with 'sudo apt install postgresql' or 'brew install postgresql', \
         or Node.js and npm, from which it is installed under target/"
    );
}
