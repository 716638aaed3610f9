//! What every task endpoint shares: serving, the session check, the queries.
//!
//! A request goes bin -> [`serve`] -> handler -> [`tasks`] -> [`Caller`] -> PostgreSQL, and back.
#![warn(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod config;
mod database;
mod database_url;
mod error;
mod event;
mod http;
mod log;
mod page;
pub mod session;
pub mod tasks;

pub use config::{Config, ConfigErrors};
pub use database::{Caller, Probe};
pub use database_url::{DatabaseUrl, InvalidDatabaseUrl};
pub use error::{Error, FieldError};
pub use event::Request;
pub use http::{Response, created_task, no_content, ok, serve, serve_without_session, task, task_page};
