//! What a server's certificate is verified with, and keeping OpenSSL from reading more.
use std::{env, path::PathBuf, sync::OnceLock};

/// The file that OpenSSL reads its roots from, before all else.
const OPENSSLS: &str = "SSL_CERT_FILE";

/// The roots of Let's Encrypt and Amazon, as DER: see build.rs.
pub(crate) static BUILT_IN: [&[u8]; 7] = include!(concat!(env!("OUT_DIR"), "/roots.rs"));

/// Where the system's roots are, once OpenSSL has been kept from them.
static SYSTEMS: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Keeps OpenSSL from the system's roots: else it reads the whole bundle when it is set up, whether that is used or not, and
/// takes longer for it than for the rest of a cold start. What the operator has set stays.
///
/// It is for the beginning of a process, while that has one thread.
pub(crate) fn hide_the_systems() {
    if env::var_os(OPENSSLS).is_some() {
        return;
    }
    SYSTEMS.get_or_init(|| openssl_probe::probe().cert_file);
    // SAFETY: no other thread can read the environment meanwhile, because there is none: a function's runtime is tokio's of
    // one thread, and this comes before anything that could start another (a look-up of a host's address, say).
    #[expect(unsafe_code, reason = "OpenSSL, as native-tls sets it up, can be told by the environment only")]
    unsafe {
        env::set_var(OPENSSLS, "/dev/null");
    }
}

/// The system's roots, where they are hidden from OpenSSL.
pub(crate) fn system_file() -> Option<PathBuf> {
    SYSTEMS.get().cloned().flatten()
}
