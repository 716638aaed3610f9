//! Other programs: finding or installing them, and running them so that none outlives us.
pub mod process;
pub mod tools;
