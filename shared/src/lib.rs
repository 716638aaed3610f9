//! What every task endpoint shares: serving, the session check, the queries.
//!
//! A request goes bin -> [`serve()`] -> handler -> [`tasks`] -> [`Caller`] -> PostgreSQL, and back.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod clock;
mod connection;
pub mod credential;
mod database;
mod error;
mod http;
mod log;
mod metrics;
pub mod purge;
mod serve;
mod settings;
pub mod tasks;

pub use connection::roots::Roots;
pub use connection::url::{DatabaseUrl, InvalidDatabaseUrl};
pub use database::{Caller, Probe};
pub use error::{AuthFailure, Error, FieldError};
pub use http::request::Request;
pub use http::response::{
    Response, created_task, file, gzip_file, no_content, ok, private_ok, task, task_if_changed, task_page,
};
pub use log::begin as begin_log;
pub use serve::{DryRun, serve, serve_files, serve_schedule, serve_without_session};
pub use settings::config::{Config, ConfigErrors, DatabaseConfig};

/// What holds a secret cannot be printed, not by mistake either: these do not compile once it can.
#[cfg(test)]
mod secrets_cannot_be_printed {
    use crate::{Caller, Config, DatabaseConfig, DatabaseUrl, DryRun, credential, database, settings};
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(credential::SessionToken: Debug, Display);
    assert_not_impl_any!(credential::Credential: Debug, Display);
    assert_not_impl_any!(credential::SessionRules: Debug, Display);
    assert_not_impl_any!(settings::aws::Service: Debug, Display);
    assert_not_impl_any!(settings::secret::SecretSource: Debug, Display);
    assert_not_impl_any!(settings::Settings: Debug, Display);
    assert_not_impl_any!(settings::Current: Debug, Display);
    assert_not_impl_any!(database::Database: Debug, Display);
    assert_not_impl_any!(Config: Debug, Display);
    assert_not_impl_any!(DatabaseConfig: Debug, Display);
    assert_not_impl_any!(DatabaseUrl: Debug, Display);
    assert_not_impl_any!(Caller: Debug, Display);
    assert_not_impl_any!(DryRun: Debug, Display);
    assert_not_impl_any!(crate::Request: Debug, Display);
}
