//! Selects, from Mozilla's root certificates, those that sign the certificates of Neon and AWS. These hosts need no
//! others, and the machine's own root store may be outdated.
use std::{env, error::Error, fs, path::PathBuf};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

/// Subject names of the roots: Let's Encrypt's (letsencrypt.org/certificates) and Amazon Trust Services'
/// (amazontrust.com/repository).
const ROOT_NAMES: [&str; 7] = [
    "ISRG Root X1",
    "ISRG Root X2",
    "Amazon Root CA 1",
    "Amazon Root CA 2",
    "Amazon Root CA 3",
    "Amazon Root CA 4",
    "Starfield Services Root Certificate Authority - G2",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let mut roots = Vec::new();
    for name in ROOT_NAMES {
        let has_name = |der: &[u8]| der.windows(name.len()).any(|bytes| bytes == name.as_bytes());
        let root = TLS_SERVER_ROOT_CERTS.iter().find(|root| has_name(root));
        roots.push(root.ok_or(format!("Mozilla's roots have no {name} any more"))?.to_vec());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("Cargo sets OUT_DIR")?);
    let text: Vec<_> = roots.iter().map(|root| format!("&{root:?}")).collect();
    fs::write(out.join("roots.rs"), format!("[{}]", text.join(",\n")))?;
    Ok(())
}
