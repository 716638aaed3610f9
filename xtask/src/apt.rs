//! Debian packages, through apt.
use crate::place::find_in_path;
use std::process::Command;

/// Whether packages can be installed: apt-get exists and the user is root.
pub fn can_install() -> bool {
    let is_root = || Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    find_in_path("apt-get").is_some() && is_root()
}

/// Returns a non-interactive `apt-get` command.
pub fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // RUNLEVEL=1 keeps a package from starting its service.
    command.arg("-qq").args(arguments).envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")]);
    command
}

/// The `apt-get` arguments before the names of packages to install.
pub const INSTALL: [&str; 3] = ["install", "-y", "--no-install-recommends"];
