//! What the tests of several packages use: a Lambda Runtime API that drives the real binaries, and a database for each test
//! in the servers that `cargo xtask test` has started.
//!
//! Every line that a binary writes is kept in a file, with every secret that the tests make, so that `cargo xtask test` can
//! look for the one in the other.
mod database;
mod lambda;

pub use database::{Database, SERVICES, Services, User};
pub use lambda::{Invoked, Lambda};

use std::{fs::OpenOptions, io::Write as _};

/// Keeps a line in a file of the run's logs; the file is named by its process, because tests of several processes write.
fn keep(name: &str, line: &str) {
    let file = format!("{}/{name}.{}", SERVICES.logs, std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(&file);
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the folder of the logs");
}

/// Notes a secret that no log may have.
pub fn remember_secret(secret: &str) {
    keep("secrets", secret);
}
