//! The servers that commands and tests start on this machine, and what is put before and into them.
pub mod better_auth;
pub mod cluster;
pub mod functions;
pub mod gateway;
pub mod moto;
pub mod pgbouncer;
pub mod postgres;
mod postgres_binaries;
pub mod schema;
pub mod seed;
pub mod services;
pub mod watch;
