//! The API's tests. Each drives the real functions through its own Lambda Runtime API, on a real PostgreSQL with TLS
//! behind a real PgBouncer in transaction mode. `cargo xtask test api` starts these servers.
//!
//! `cargo xtask test sam-local` runs some of them over HTTP instead, against functions in AWS's `sam local start-api`.
mod access;
mod api;
mod batch;
mod changes;
mod conditional;
mod contract;
mod credentials;
mod fair_shares;
mod front_ends;
mod fuzz;
mod http;
mod idempotency;
mod input;
mod isolation;
mod jwt;
mod jwt_judge;
mod listing;
mod loot;
mod plans;
mod prepared;
mod purge;
mod restores;
mod role;
mod running;
mod secrets;
mod tasks;
mod template;
