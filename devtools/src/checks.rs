//! Static checks of sources, programs and logs.
pub mod elf;
pub mod logs;
pub mod openapi;
pub mod orm;
pub mod sam;
pub mod sbom;
pub mod supply_chain;
