//! What a command says while it works.

/// Prints what is being done.
pub fn step(what: impl AsRef<str>) {
    eprintln!("==> {}", what.as_ref());
}
