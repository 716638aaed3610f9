//! A connection to the database: its URL, and how the server's certificate is verified.
pub(crate) mod roots;
pub(crate) mod url;
