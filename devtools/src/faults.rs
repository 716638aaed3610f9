//! What happens when the servers and the network between them fail: as a matrix, and under load.
pub mod matrix;
mod rig;
pub mod soak;
