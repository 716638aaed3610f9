//! Other programs: finding, installing or building them, and running them so that none outlives us.
pub mod build;
pub mod process;
pub mod progress;
pub mod tools;
