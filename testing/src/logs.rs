//! Writes the binaries' log lines to files, which `cargo xtask test` searches for secrets, and reads PostgreSQL's log.
use crate::services::SERVICES;
use std::{fs::OpenOptions, io::Write as _, sync::OnceLock};

static LOGS: OnceLock<String> = OnceLock::new();

/// Sets the log folder, for programs that do not use the servers of `cargo xtask test`.
pub fn keep_logs_in(folder: &str) {
    LOGS.get_or_init(|| folder.to_owned());
}

/// Appends a line to `NAME.PID` in the log folder. The process id keeps concurrent test processes apart.
pub(crate) fn append_line(name: &str, line: &str) {
    let folder = LOGS.get_or_init(|| SERVICES.logs.clone());
    let file = format!("{folder}/{name}.{}", std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(&file);
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the log folder is writable");
}

/// Records a secret that must not appear in any log.
pub fn remember_secret(secret: &str) {
    append_line("secrets", secret);
}

/// What PostgreSQL logs from a moment on.
pub struct PostgresLog {
    start: usize,
}

impl PostgresLog {
    /// The log from now on.
    pub fn from_now() -> Self {
        Self { start: Self::read().len() }
    }

    /// The text that has been logged since.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&Self::read()[self.start..]).into_owned()
    }

    fn read() -> Vec<u8> {
        std::fs::read(&SERVICES.postgres_log).expect("PostgreSQL's log")
    }
}
