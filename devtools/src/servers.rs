//! The servers that commands and tests start on this machine, with their gateway, schema and seed data.
pub mod better_auth;
pub mod cluster;
pub mod docker;
pub mod front_end;
pub mod functions;
pub mod gateway;
pub mod moto;
pub mod pgbouncer;
mod pgbouncer_binaries;
pub mod postgres;
mod postgres_binaries;
pub mod sam_local;
pub mod schema;
pub mod seed;
pub mod services;
pub mod watch;
