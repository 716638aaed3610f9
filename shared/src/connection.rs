//! Connections to the database: the pool, the URL, and the verification of the server's certificate.
pub(crate) mod direct;
pub(crate) mod pool;
pub(crate) mod roots;
pub(crate) mod url;
