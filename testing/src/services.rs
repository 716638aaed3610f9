//! The servers that `cargo xtask test` has started.
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// What `cargo xtask test` has started.
#[derive(Clone, Serialize, Deserialize)]
pub struct Services {
    /// PostgreSQL's port on 127.0.0.1, where the superuser needs no TLS.
    pub postgres_port: u16,
    /// The superuser's password.
    pub superuser_password: String,
    /// The owner's URL of the template, without a pooler.
    pub owner_url: String,
    /// PgBouncer's port on 127.0.0.1.
    pub pooler_port: u16,
    /// The API role's password.
    pub api_password: String,
    /// The migrated database that each test's is a copy of.
    pub template: String,
    /// The certificate of all servers, which is its own root.
    pub certificate: String,
    /// Its key.
    #[serde(default)]
    pub certificate_key: String,
    /// Where moto answers as AWS Secrets Manager, without TLS; empty where it does not run.
    #[serde(default)]
    pub moto_url: String,
    /// moto's program, for a test that needs a server with other settings.
    #[serde(default)]
    pub moto_server: String,
    /// The file of PostgreSQL's log.
    pub postgres_log: String,
    /// Where what the functions log is kept, and the secrets that must not be in it.
    pub logs: String,
}

/// What `cargo xtask test` has started, as it says in a file.
pub static SERVICES: LazyLock<Services> = LazyLock::new(|| {
    let file = std::env::var("TASKS_TEST_SERVICES").unwrap_or_else(|_| {
        panic!("these tests need PostgreSQL and PgBouncer: run them with 'cargo xtask test', which starts them")
    });
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
});
