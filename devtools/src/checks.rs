//! Checks of what is written or built, without running the API.
pub mod elf;
pub mod logs;
pub mod openapi;
pub mod sam;
pub mod supply_chain;
