//! Recompiles the crate when a migration is added or changed, because the files are embedded in it.
fn main() {
    println!("cargo::rerun-if-changed=.");
}
