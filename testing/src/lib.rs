//! Test support for several packages: a Lambda Runtime API that drives the real binaries, the routes of openapi.yaml
//! with API Gateway's events, and a database for each test on the servers that `cargo xtask test` has started.
//!
//! Keep the dependencies few: functions/tests must compile neither sqlx nor the AWS SDK.
//!
//! Every log line of a binary and every secret that the tests create goes to a file. `cargo xtask test` then searches
//! the logs for the secrets.
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
pub use lambda::{Invoked, Lambda, program};
pub use logs::{PostgresLog, keep_logs_in, remember_secret};
pub use openapi::{OpenApi, Route, Secret, Throttle, logical_id};
pub use proxy::{Messages, Network, Proxy, Side};
pub use secrets_manager::SecretsManager;
pub use services::{RunningApi, SERVICES, Services};
pub use tokio_postgres::{Client, SimpleQueryMessage};

/// The secret that signs cookies in the tests.
pub const SECRET: &str = "a-secret-of-the-tests-0123456789abcdef";
