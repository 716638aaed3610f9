//! Debian's packages.
use crate::place::find_in_path;
use std::process::Command;

/// Whether we may install them: as root, where there is apt.
pub fn can_install() -> bool {
    let is_root = || Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    find_in_path("apt-get").is_some() && is_root()
}

/// `apt-get` with arguments. It asks nothing.
pub fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // RUNLEVEL: a package that brings a service must not start it.
    command.arg("-qq").args(arguments).envs([("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")]);
    command
}

/// The arguments that install packages.
pub const INSTALL: [&str; 3] = ["install", "-y", "--no-install-recommends"];
