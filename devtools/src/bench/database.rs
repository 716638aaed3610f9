//! The database of a benchmark.
use crate::servers::{
    cluster::start_migrated,
    postgres::{Postgres, Purpose},
};
use anyhow::Result;
use sqlx::PgConnection;
use std::{fs, path::Path};

/// Starts PostgreSQL with an empty database in `folder`, without what an earlier run left there. Returns it with a connection
/// as the owner.
pub async fn start_empty(folder: &Path) -> Result<(Postgres, PgConnection)> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    start_migrated(folder, Purpose::Benchmark, None).await
}
