//! Times programs as Lambda would run them, side by side: `cargo xtask bench` says which, and on which database.
//!
//! A [`program::Program`] is an API, of one function or of several. A [`trial`] starts it, calls it, and ends it; trials of all
//! programs take turns, so that what disturbs the machine disturbs all of them, and ratios are made within each round.
//!
//! It is for Linux, whose clocks, control groups and affinities it uses.
pub mod cpus;
pub mod event;
pub mod floor;
pub mod function;
pub mod plots;
pub mod program;
pub mod quota;
pub mod relay;
pub mod report;
pub mod statistics;
pub mod trial;
