//! Connections to the database: their pool, its URL, and how the server's certificate is verified.
pub(crate) mod pool;
pub(crate) mod roots;
pub(crate) mod url;
