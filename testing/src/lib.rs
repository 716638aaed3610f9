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
mod logs;
mod openapi;
mod proxy;
mod secrets_manager;
mod services;

pub use database::{Database, User};
pub use gateway::GatewayRequest;
pub use lambda::{Invoked, Lambda};
pub use logs::{keep_logs_in, remember_secret};
pub use openapi::{OpenApi, Route, Secret, Throttle, logical_id};
pub use proxy::{Messages, Network, Proxy, Side};
pub use secrets_manager::SecretsManager;
pub use services::{SERVICES, Services};
pub use tokio_postgres::Client;

/// The secret that signs cookies in the tests.
pub const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";
