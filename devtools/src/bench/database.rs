//! The database of a benchmark.
use crate::servers::{
    cluster::start_migrated,
    postgres::{Postgres, Purpose},
};
use anyhow::Result;
use sqlx::PgConnection;
use std::{fs, path::Path};

/// The token of the session that [`sign_in`] adds.
pub const TOKEN: &str = "a-token-of-the-benchmark";

/// Adds the user `bench` with a session for a day.
pub async fn sign_in(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("insert into \"user\" (id, email) values ('bench', 'bench@example.com')")
        .execute(&mut *connection)
        .await?;
    let session = "insert into session (id, user_id, token, created_at, expires_at)
        select 'bench', 'bench', $1, at, at + interval '1 day' from (select now() at time zone 'utc') as now (at)";
    sqlx::query(session).bind(TOKEN).execute(connection).await?;
    Ok(())
}

/// Starts PostgreSQL with an empty database in `folder`, without what an earlier run left there. Returns it with a connection
/// as the owner.
pub async fn start_empty(folder: &Path) -> Result<(Postgres, PgConnection)> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    start_migrated(folder, Purpose::Benchmark, None).await
}
