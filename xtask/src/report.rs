//! Progress output.

/// Prints the step that begins.
pub fn step(what: impl AsRef<str>) {
    eprintln!("==> {}", what.as_ref());
}
