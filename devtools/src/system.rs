//! Finds, installs, builds and runs other programs.
pub mod build;
pub mod chroot;
pub mod process;
pub mod progress;
pub mod tools;
