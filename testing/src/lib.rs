//! What the tests of several packages use: a Lambda Runtime API that drives the real binaries, the routes of openapi.yaml with
//! the events of API Gateway, and a database for each test in the servers that `cargo xtask test` has started.
//!
//! It stays light: functions/tests must compile neither sqlx nor the AWS SDK.
//!
//! Every line that a binary writes is kept in a file, with every secret that the tests make, so that `cargo xtask test` can
//! look for the one in the other.
mod database;
mod gateway;
mod lambda;
mod openapi;
mod proxy;
mod secrets_manager;

pub use database::{Database, SERVICES, Services, User};
pub use gateway::GatewayRequest;
pub use lambda::{Invoked, Lambda};
pub use openapi::{OpenApi, Route, Secret, Throttle, logical_id};
pub use proxy::{Messages, Network, Proxy, Side};
pub use secrets_manager::SecretsManager;
pub use tokio_postgres::Client;

/// The secret that signs cookies in the tests.
pub const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";

use std::{fs::OpenOptions, io::Write as _, sync::OnceLock};

static LOGS: OnceLock<String> = OnceLock::new();

/// Keeps the logs in this folder, where the servers are not those of `cargo xtask test`.
pub fn keep_logs_in(folder: &str) {
    LOGS.get_or_init(|| folder.to_owned());
}

/// Keeps a line in a file of the run's logs; the file is named by its process, because tests of several processes write.
fn keep(name: &str, line: &str) {
    let folder = LOGS.get_or_init(|| SERVICES.logs.clone());
    let file = format!("{folder}/{name}.{}", std::process::id());
    let file = OpenOptions::new().create(true).append(true).open(&file);
    file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).expect("the folder of the logs");
}

/// Notes a secret that no log may have.
pub fn remember_secret(secret: &str) {
    keep("secrets", secret);
}
