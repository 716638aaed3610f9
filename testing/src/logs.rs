//! What the binaries write, kept for `cargo xtask test` to look through.
use crate::services::SERVICES;
use std::{fs::OpenOptions, io::Write as _, sync::OnceLock};

static LOGS: OnceLock<String> = OnceLock::new();

/// Keeps the logs in this folder, where the servers are not those of `cargo xtask test`.
pub fn keep_logs_in(folder: &str) {
    LOGS.get_or_init(|| folder.to_owned());
}

/// Keeps a line in a file of the run's logs; the file is named by its process, because tests of several processes write.
pub(crate) fn keep(name: &str, line: &str) {
    let folder = LOGS.get_or_init(|| SERVICES.logs.clone());
    let file = format!("{folder}/{name}.{}", std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(&file);
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the folder of the logs");
}

/// Notes a secret that no log may have.
pub fn remember_secret(secret: &str) {
    keep("secrets", secret);
}
