//! What every task endpoint shares: serving, the session check, the queries.
//!
//! A request goes bin -> [`serve`] -> handler -> [`tasks`] -> [`Caller`] -> PostgreSQL, and back.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod clock;
mod config;
mod database;
mod database_url;
mod error;
mod event;
mod http;
mod log;
mod metrics;
mod page;
pub mod purge;
mod secret;
mod serve;
pub mod session;
mod settings;
pub mod tasks;

pub use config::{Config, ConfigErrors};
pub use database::{Caller, Probe};
pub use database_url::{DatabaseUrl, InvalidDatabaseUrl};
pub use error::{AuthFailure, Error, FieldError};
pub use event::Request;
pub use http::{Response, created_task, no_content, ok, task, task_page};
pub use log::begin as begin_log;
pub use serve::{serve, serve_schedule, serve_without_session};
