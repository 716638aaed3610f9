//! Tests with failing servers and networks: a matrix of faults, and a load test.
pub mod matrix;
mod rig;
pub mod soak;
