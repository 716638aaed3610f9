//! Chooses the OpenSSL for local builds: the system's, ready in seconds, or one compiled from source, which takes two
//! minutes. Deployed binaries always link the one from source (see shared/Cargo.toml).
use crate::{
    apt,
    place::{find_in_path, variable},
    report::step,
};
use anyhow::{Result, bail};
use std::process::{Command, Stdio};

/// The OpenSSL to link with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenSsl {
    /// The system's OpenSSL.
    System,
    /// Compiled from source.
    Vendored,
}

impl OpenSsl {
    /// Returns `System` if the system has the headers to compile against. Looks in the same places as the crate
    /// openssl-sys.
    pub fn find() -> Self {
        let is_there = variable("OPENSSL_DIR").is_some()
            || variable("OPENSSL_LIB_DIR").is_some()
            || find_in_path("pkg-config").is_some_and(|program| {
                let mut command = Command::new(program);
                command.args(["--exists", "openssl"]).stdin(Stdio::null()).stderr(Stdio::null());
                command.status().is_ok_and(|status| status.success())
            });
        if is_there { Self::System } else { Self::Vendored }
    }

    /// Like [`find`](Self::find), but first tries to install the system's headers if they are missing. Fails if OpenSSL
    /// cannot be compiled from source either.
    pub fn find_or_install() -> Result<Self> {
        if Self::find() == Self::System || install() {
            return Ok(Self::System);
        }
        for tool in ["perl", "make"] {
            if find_in_path(tool).is_none() {
                bail!(
                    "{tool} is missing, and OpenSSL's headers are too: install them with \
                     'sudo apt install libssl-dev pkg-config', or {tool} to compile OpenSSL from source"
                );
            }
        }
        step(
            "OpenSSL's headers are missing: it is compiled from source, two minutes more on two cores \
             ('sudo apt install libssl-dev pkg-config' saves them)",
        );
        Ok(Self::Vendored)
    }

    /// The flags for cargo. The packages enable the feature `vendored-openssl` by default.
    pub fn cargo_flags(self) -> &'static [&'static str] {
        match self {
            Self::System => &["--no-default-features"],
            Self::Vendored => &[],
        }
    }
}

/// Installs the headers with apt, if permitted. Returns whether they are installed afterwards.
fn install() -> bool {
    if !apt::can_install() {
        return false;
    }
    step("Installing OpenSSL's headers (apt-get install libssl-dev pkg-config)");
    let run = |arguments: &[&str]| {
        let status = apt::apt_get(arguments).stdout(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let packages = [&apt::INSTALL[..], &["libssl-dev", "pkg-config"]].concat();
    (run(&packages) || (run(&["update"]) && run(&packages))) && OpenSsl::find() == OpenSsl::System
}
