//! What every task endpoint shares: serving, the session check, the queries.
//!
//! A request goes bin -> [`serve()`] -> handler -> [`tasks`] -> [`Caller`] -> PostgreSQL, and back.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod aws;
mod body;
mod clock;
mod config;
mod database;
mod database_url;
mod error;
mod event;
mod http;
mod input;
mod log;
mod metrics;
mod page;
mod precondition;
pub mod purge;
mod roots;
mod secret;
mod serve;
pub mod session;
mod settings;
mod task;
pub mod tasks;

pub use config::{Config, ConfigErrors, DatabaseConfig};
pub use database::{Caller, Probe};
pub use database_url::{DatabaseUrl, InvalidDatabaseUrl};
pub use error::{AuthFailure, Error, FieldError};
pub use event::Request;
pub use http::{Response, created_task, file, gzip_file, no_content, ok, private_ok, task, task_if_changed, task_page};
pub use log::begin as begin_log;
pub use roots::Roots;
pub use serve::{DryRun, serve, serve_files, serve_schedule, serve_without_session};

/// What holds a secret cannot be printed, not by mistake either: these do not compile once it can.
#[cfg(test)]
mod secrets_cannot_be_printed {
    use crate::{Caller, Config, DatabaseConfig, DatabaseUrl, DryRun, aws, database, secret, session, settings};
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(session::SessionToken: Debug, Display);
    assert_not_impl_any!(session::Credential: Debug, Display);
    assert_not_impl_any!(session::SessionRules: Debug, Display);
    assert_not_impl_any!(aws::Service: Debug, Display);
    assert_not_impl_any!(secret::SecretSource: Debug, Display);
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
