//! Locations: the project, its build output, and the programs and environment variables of this machine.
use std::path::{Path, PathBuf};

/// The project's root folder.
pub fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_owned()
}

/// The folder for all build output and generated data: `CARGO_TARGET_DIR`, or `target`.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The folder of `cargo xtask dev`: `given`, made absolute, or `dev` in the target folder.
pub fn dev_folder(given: Option<&Path>) -> std::io::Result<PathBuf> {
    given.map_or_else(|| Ok(target().join("dev")), std::path::absolute)
}

/// Finds a program by name in PATH, then in the sbin folders, which are usually only in root's PATH.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Returns an environment variable; `None` if it is unset or blank.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
