//! What a server's certificate is verified with, and keeping OpenSSL from reading more.
use std::{env, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

/// The file that OpenSSL reads its roots from, before all else.
const OPENSSLS: &str = "SSL_CERT_FILE";
/// Where the system's roots are, for a database whose host needs them.
const SYSTEMS: &str = "SYSTEM_CERT_FILE";

/// The roots of Let's Encrypt and Amazon, as DER: see build.rs.
pub(crate) static BUILT_IN: [&[u8]; 7] = include!(concat!(env!("OUT_DIR"), "/roots.rs"));

/// Begins the process anew, with an environment in which OpenSSL finds no roots: else it reads the system's whole bundle when
/// it is set up, whether that is used or not, and takes longer for it than a cold start takes otherwise. A process cannot
/// change its own environment safely.
///
/// Returns where that has been done already, or the operator has set `SSL_CERT_FILE`.
pub(crate) fn begin_without_the_systems() {
    if env::var_os(OPENSSLS).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut command = Command::new(program);
    if let Some(file) = openssl_probe::probe().cert_file {
        command.env(SYSTEMS, file);
    }
    let error = command.args(env::args_os().skip(1)).env(OPENSSLS, "/dev/null").exec();
    tracing::warn!(cause = error.to_string(), "the system's roots are read, though they are not needed");
}

/// The system's roots, where they are not those that OpenSSL has read by itself.
pub(crate) fn system_file() -> Option<PathBuf> {
    env::var_os(SYSTEMS).map(PathBuf::from)
}
