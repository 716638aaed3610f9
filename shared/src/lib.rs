//! The code that all task endpoints share: serving, the session check and the queries.
//!
//! A request goes bin -> [`serve_reads`] or [`serve_writes`] -> handler -> [`tasks`] -> [`Caller`] -> PostgreSQL, and the response goes back
//! the same way.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, missing_docs)]

mod caller;
mod clock;
mod connection;
mod credential;
mod database;
mod dry_run;
mod edge;
mod environment;
mod error;
mod http;
#[cfg(test)]
mod imports;
mod job;
mod jwt;
mod log;
mod metrics;
mod probe;
pub mod purge;
mod serve;
pub mod session;
mod settings;
mod statement;
pub mod tasks;
mod timestamp;

pub use caller::Caller;
pub use connection::{
    pool::DatabaseConfig,
    roots::Roots,
    url::{DatabaseUrl, InvalidDatabaseUrl},
};
pub use credential::SessionRules;
pub use error::{AuthFailure, Error, FieldError};
pub use http::{request::Request, response::Response};
pub use job::Job;
pub use jwt::failure::JwtFailure;
pub use log::begin as begin_log;
pub use probe::Probe;
pub use serve::{serve_files, serve_reads, serve_schedule, serve_without_session, serve_writes};
pub use settings::config::{Config, ConfigErrors};
pub use statement::Statement;
pub use timestamp::Timestamp;

/// Internals for the tests of other packages. Not part of the API.
#[doc(hidden)]
pub mod testing_support {
    pub use crate::{credential::Access, dry_run::DryRun};
}

/// Types that hold a secret must not be printable, not even by mistake. Compilation fails if one of them implements
/// `Debug` or `Display`.
#[cfg(test)]
mod secrets_cannot_be_printed {
    use crate::{caller, connection, credential, database, dry_run, http, jwt, settings};
    use static_assertions::assert_not_impl_any;
    use std::fmt::{Debug, Display};

    assert_not_impl_any!(credential::SessionToken: Debug, Display);
    assert_not_impl_any!(credential::Credential: Debug, Display);
    assert_not_impl_any!(credential::Identity: Debug, Display);
    assert_not_impl_any!(credential::Admission: Debug, Display);
    assert_not_impl_any!(credential::SessionRules: Debug, Display);
    assert_not_impl_any!(jwt::JwtRules: Debug, Display);
    assert_not_impl_any!(jwt::memory::VerifiedTokens: Debug, Display);
    assert_not_impl_any!(jwt::known::KnownKeys: Debug, Display);
    assert_not_impl_any!(settings::aws::Service: Debug, Display);
    assert_not_impl_any!(settings::secret::SecretSource: Debug, Display);
    assert_not_impl_any!(settings::Settings: Debug, Display);
    assert_not_impl_any!(settings::Snapshot: Debug, Display);
    assert_not_impl_any!(database::Database: Debug, Display);
    assert_not_impl_any!(settings::config::Config: Debug, Display);
    assert_not_impl_any!(connection::pool::DatabaseConfig: Debug, Display);
    assert_not_impl_any!(connection::url::DatabaseUrl: Debug, Display);
    assert_not_impl_any!(caller::Caller: Debug, Display);
    assert_not_impl_any!(dry_run::DryRun: Debug, Display);
    assert_not_impl_any!(http::request::Request: Debug, Display);
}
