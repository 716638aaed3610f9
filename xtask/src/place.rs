//! Where things are: the project, what is built, and the programs of this machine.
use std::path::{Path, PathBuf};

/// The project's folder.
pub fn root() -> PathBuf {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir).to_owned()
}

/// Where everything goes that is not source.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The folder that `cargo xtask dev` uses where it is told no other.
pub fn dev_folder(given: Option<&Path>) -> std::io::Result<PathBuf> {
    given.map_or_else(|| Ok(target().join("dev")), std::path::absolute)
}

/// A program by its name, as the shell would find it, and in the folders that only root's PATH has.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A variable of the environment; `None` where it is not set or blank.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
