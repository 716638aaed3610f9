//! Root certificates for verifying a server's certificate, and a way to keep OpenSSL from loading more.
use native_tls::{Certificate, TlsConnector, TlsConnectorBuilder};
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The root certificates that a server's certificate is verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The built-in roots of Let's Encrypt and Amazon, for the hosts of Neon and AWS.
    BuiltIn,
    /// The system's roots.
    System,
    /// The roots in a PEM file.
    File(PathBuf),
}

/// The variable with the file that OpenSSL loads its roots from, before all others.
const CERT_FILE_VARIABLE: &str = "SSL_CERT_FILE";

/// The roots of Let's Encrypt and Amazon, in DER form: see build.rs.
static BUILT_IN: [&[u8]; 7] = include!(concat!(env!("OUT_DIR"), "/roots.rs"));

/// The file of the system's roots. Set once they are hidden from OpenSSL.
static SYSTEM_ROOTS_FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Hides the system's roots from OpenSSL. Otherwise it loads the whole bundle when it is initialised, used or not,
/// which takes longer than the rest of a cold start. A file set by the operator is kept.
///
/// Call it at the start of a process, while there is only one thread.
pub(crate) fn hide_system_roots() {
    if env::var_os(CERT_FILE_VARIABLE).is_some() {
        return;
    }
    SYSTEM_ROOTS_FILE.get_or_init(|| openssl_probe::probe().cert_file);
    // SAFETY: no other thread exists that could read the environment meanwhile. A function runs on tokio's
    // single-threaded runtime, and this comes before anything that could start another thread, such as a DNS look-up.
    #[expect(unsafe_code, reason = "native-tls lets OpenSSL be configured through the environment only")]
    unsafe {
        env::set_var(CERT_FILE_VARIABLE, "/dev/null");
    }
}

/// Returns a connector that verifies a server's certificate and name with these roots only.
///
/// The connector for the built-in roots is created once: a cold start connects to AWS and to Neon, and both use it.
///
/// # Errors
/// As [`builder`].
pub(crate) fn connector(roots: &Roots) -> Result<TlsConnector, String> {
    static BUILT_IN: OnceLock<TlsConnector> = OnceLock::new();
    if let (Roots::BuiltIn, Some(connector)) = (roots, BUILT_IN.get()) {
        return Ok(connector.clone());
    }
    let connector = builder(roots)?.build().map_err(|error| format!("that TLS cannot be set up with: {error}"))?;
    Ok(if *roots == Roots::BuiltIn { BUILT_IN.get_or_init(|| connector).clone() } else { connector })
}

/// Like [`connector`], but returns the builder for further settings.
///
/// # Errors
/// What is wrong with the file of roots, worded to follow the name of its setting.
pub(crate) fn builder(roots: &Roots) -> Result<TlsConnectorBuilder, String> {
    let mut builder = TlsConnector::builder();
    builder.disable_built_in_roots(*roots != Roots::System);
    let certificates = match roots {
        Roots::BuiltIn => BUILT_IN.iter().filter_map(|der| Certificate::from_der(der).ok()).collect(),
        Roots::System => system_roots_file().and_then(|file| read(file).ok()).unwrap_or_default(),
        Roots::File(path) => read(path)?,
    };
    for certificate in certificates {
        builder.add_root_certificate(certificate);
    }
    Ok(builder)
}

/// The file of the system's roots, if they are hidden from OpenSSL.
fn system_roots_file() -> Option<&'static Path> {
    SYSTEM_ROOTS_FILE.get()?.as_deref()
}

fn read(file: &Path) -> Result<Vec<Certificate>, String> {
    let pem = fs::read(file).map_err(|_| format!("that cannot be read: {}", file.display()))?;
    Certificate::stack_from_pem(&pem).map_err(|_| format!("that is not a PEM file: {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_root_is_a_certificate() {
        for der in BUILT_IN {
            Certificate::from_der(der).unwrap();
        }
    }
}
