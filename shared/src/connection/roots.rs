//! What a server's certificate is verified with, and keeping OpenSSL from reading more.
use native_tls::{Certificate, TlsConnector, TlsConnectorBuilder};
use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// What a server's certificate has to be signed by, in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Those of Let's Encrypt and Amazon, which are built in: for Neon's and AWS's own hosts.
    BuiltIn,
    /// The system's.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}

/// The file that OpenSSL reads its roots from, before all else.
const CERT_FILE_VARIABLE: &str = "SSL_CERT_FILE";

/// The roots of Let's Encrypt and Amazon, as DER: see build.rs.
static BUILT_IN: [&[u8]; 7] = include!(concat!(env!("OUT_DIR"), "/roots.rs"));

/// Where the system's roots are, once OpenSSL has been kept from them.
static SYSTEM_FILE: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Keeps OpenSSL from the system's roots: else it reads the whole bundle when it is set up, whether that is used or not, and
/// takes longer for it than for the rest of a cold start. What the operator has set stays.
///
/// It is for the beginning of a process, while that has one thread.
pub(crate) fn hide_system_roots() {
    if env::var_os(CERT_FILE_VARIABLE).is_some() {
        return;
    }
    SYSTEM_FILE.get_or_init(|| openssl_probe::probe().cert_file);
    // SAFETY: no other thread can read the environment meanwhile, because there is none: a function's runtime is tokio's of
    // one thread, and this comes before anything that could start another (a look-up of a host's address, say).
    #[expect(unsafe_code, reason = "OpenSSL, as native-tls sets it up, can be told by the environment only")]
    unsafe {
        env::set_var(CERT_FILE_VARIABLE, "/dev/null");
    }
}

/// TLS that verifies a server's certificate and name with these roots, and with no others.
///
/// With the built-in ones it is set up once: a cold start connects to AWS and to Neon, and both have theirs among them.
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

/// Like [`connector`], to be completed.
///
/// # Errors
/// What is wrong with a file of roots, to come after the name of the setting that has it.
pub(crate) fn builder(roots: &Roots) -> Result<TlsConnectorBuilder, String> {
    let mut builder = TlsConnector::builder();
    builder.disable_built_in_roots(*roots != Roots::System);
    let certificates = match roots {
        Roots::BuiltIn => BUILT_IN.iter().filter_map(|der| Certificate::from_der(der).ok()).collect(),
        Roots::System => system_file().and_then(|file| read(file).ok()).unwrap_or_default(),
        Roots::File(path) => read(path)?,
    };
    for certificate in certificates {
        builder.add_root_certificate(certificate);
    }
    Ok(builder)
}

/// The system's roots, where they are hidden from OpenSSL.
fn system_file() -> Option<&'static Path> {
    SYSTEM_FILE.get()?.as_deref()
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
