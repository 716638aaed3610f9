//! The servers that `cargo xtask test` has started.
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The ports, passwords and files of the servers that `cargo xtask test` has started.
#[derive(Clone, Serialize, Deserialize)]
pub struct Services {
    /// PostgreSQL's port on 127.0.0.1. The superuser may connect without TLS.
    pub postgres_port: u16,
    pub superuser_password: String,
    /// The owner role's URL of the template database, which bypasses PgBouncer.
    pub owner_url: String,
    /// PgBouncer's port on 127.0.0.1.
    pub pooler_port: u16,
    /// The password of the role `tasks_api`.
    pub api_password: String,
    /// The migrated database that is copied for each test.
    pub template: String,
    /// The file with the self-signed certificate of all servers.
    pub certificate: String,
    /// The file with the private key of `certificate`.
    #[serde(default)]
    pub certificate_key: String,
    /// The URL of moto, which stands in for AWS Secrets Manager, without TLS. Empty if moto does not run.
    #[serde(default)]
    pub moto_url: String,
    /// The path of moto's server, for a test that starts one with other settings.
    #[serde(default)]
    pub moto_server: String,
    /// PostgreSQL's log file.
    pub postgres_log: String,
    /// The folder with the functions' logs and the secrets that must not appear in them.
    pub logs: String,
    /// The API that the tests call over HTTP. `None` if each test starts the functions that it calls.
    #[serde(default)]
    pub running_api: Option<RunningApi>,
}

/// An API that runs already, and its database, which the tests take turns to use.
#[derive(Clone, Serialize, Deserialize)]
pub struct RunningApi {
    /// Host and port.
    pub address: String,
    /// The name of the database.
    pub database: String,
}

/// The servers of this run, from the file that `TASKS_TEST_SERVICES` names.
pub static SERVICES: LazyLock<Services> = LazyLock::new(|| {
    let file = std::env::var("TASKS_TEST_SERVICES").unwrap_or_else(|_| {
        panic!("these tests need PostgreSQL and PgBouncer: run them with 'cargo xtask test', which starts them")
    });
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
});
