//! Benchmarks programs as Lambda would run them, side by side. `cargo xtask bench` chooses the programs and the
//! database.
//!
//! A [`program::Program`] is an API of one or several functions. A [`trial`] starts it, calls it and ends it. Trials of
//! the programs alternate, so that disturbances of the machine affect all of them. Ratios are computed within each
//! round.
//!
//! Linux only: it uses Linux's clocks, control groups and CPU affinity.
pub mod backends;
pub mod cpus;
pub mod event;
pub mod floor;
pub mod function;
mod http;
pub mod plots;
pub mod program;
pub mod quota;
pub mod relay;
pub mod report;
pub mod secrets_manager;
pub mod statistics;
pub mod trial;
