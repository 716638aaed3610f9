//! The API's tests: the real functions, driven through a Lambda Runtime API of the test's own, against a real PostgreSQL
//! with TLS behind a real PgBouncer in transaction mode. `cargo xtask test api` starts what they need.
mod access;
mod api;
mod conditional;
mod contract;
mod credentials;
mod front_ends;
mod fuzz;
mod idempotency;
mod input;
mod isolation;
mod listing;
mod plans;
mod purge;
mod role;
mod running;
mod secrets;
mod tasks;
mod template;
