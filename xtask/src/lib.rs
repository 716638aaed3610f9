//! Code shared by the front end of `cargo xtask` and the commands behind it (the package `devtools`).
pub mod apt;
pub mod build;
pub mod cli;
pub mod database;
pub mod durations;
pub mod openssl;
pub mod place;
pub mod postgres;
mod report;

pub use report::step;
