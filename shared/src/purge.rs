//! Deletes expired rows that nothing else deletes, because nobody asks for them any more.
use crate::{
    database::Database,
    error::Error,
    job::Job,
    statement::{Statement, without_caller},
    tasks::input::key_lifetime,
};
use metrique_writer::{Entry, EntryWriter, unit::AsCount};
use serde::Serialize;
use std::time::{Duration, SystemTime};
use tokio_postgres::types::Type;

/// Maximum number of rows that one statement deletes, so that it holds its locks for only a few milliseconds.
const MAX_ROWS_PER_STATEMENT: i32 = 1000;
/// Seconds before Lambda's deadline after which no batch starts. It is more than a statement may take.
const MARGIN_S: u64 = 15;

/// How many rows were deleted.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Expired sessions that nobody has used since: Better Auth deletes an expired session only when it comes across
    /// it.
    pub sessions: u64,
    /// Better Auth's expired verifications, such as links for resetting a password that nobody followed.
    pub verifications: u64,
    /// Idempotency keys older than a day, which are no longer valid.
    pub idempotency_keys: u64,
    /// Ids of tasks that were deleted 90 days ago. A client that has not asked for changes since starts over.
    pub removals: u64,
    /// Whether everything that had expired is gone. The next run deletes the rest.
    pub is_complete: bool,
}

/// Deletes expired rows in batches, until none are left or the job's time is up.
///
/// # Errors
/// Errors of the database. Batches deleted before stay deleted.
pub async fn purge(job: Job) -> Result<Purged, Error> {
    let housekeeper = Housekeeper(job.database);
    let mut purged = Purged::default();
    let until = job.deadline.checked_sub(Duration::from_secs(MARGIN_S)).unwrap_or(SystemTime::UNIX_EPOCH);
    loop {
        let sessions = housekeeper.remove_expired_sessions(MAX_ROWS_PER_STATEMENT).await?;
        let verifications = housekeeper.remove_expired_verifications(MAX_ROWS_PER_STATEMENT).await?;
        let idempotency_keys = housekeeper.remove_old_idempotency_keys(MAX_ROWS_PER_STATEMENT).await?;
        let removals = housekeeper.forget_old_removals(MAX_ROWS_PER_STATEMENT).await?;
        purged.sessions += sessions;
        purged.verifications += verifications;
        purged.idempotency_keys += idempotency_keys;
        purged.removals += removals;
        purged.is_complete = sessions.max(verifications).max(idempotency_keys).max(removals)
            < u64::from(MAX_ROWS_PER_STATEMENT.unsigned_abs());
        if purged.is_complete || SystemTime::now() >= until {
            break;
        }
    }
    job.metrics.write(&PurgedRecord(&purged));
    Ok(purged)
}

/// The rights of the scheduled job: it can delete expired rows, and can reach no live session and no task.
struct Housekeeper(Database);

impl Housekeeper {
    /// Deletes at most `max_rows` expired sessions and returns how many.
    async fn remove_expired_sessions(&self, max_rows: i32) -> Result<u64, Error> {
        self.remove(without_caller!("select public.purge_expired('session', $1)"), max_rows).await
    }

    /// Deletes at most `max_rows` expired verifications and returns how many.
    async fn remove_expired_verifications(&self, max_rows: i32) -> Result<u64, Error> {
        self.remove(without_caller!("select public.purge_expired('verification', $1)"), max_rows).await
    }

    /// Deletes at most `max_rows` idempotency keys that are no longer valid, and returns how many.
    async fn remove_old_idempotency_keys(&self, max_rows: i32) -> Result<u64, Error> {
        let sql = without_caller!(concat!(
            "with removed as (
                delete from public.idempotency_keys where ctid = any (array(
                    select ctid from public.idempotency_keys
                    where created_at <= now() at time zone 'utc' - interval '",
            key_lifetime!(),
            "'
                    order by created_at limit $1
                    for update skip locked))
                returning 1)
            select count(*) from removed"
        ));
        self.remove(sql, max_rows).await
    }

    /// Forgets at most `max_rows` old deletions of tasks, and returns how many.
    async fn forget_old_removals(&self, max_rows: i32) -> Result<u64, Error> {
        self.remove(without_caller!("select public.purge_removed($1)"), max_rows).await
    }

    async fn remove(&self, statement: Statement, max_rows: i32) -> Result<u64, Error> {
        let rows = self.0.run(&statement, &[(&max_rows, Type::INT4)]).await?;
        let removed: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(removed.unsigned_abs())
    }
}

struct PurgedRecord<'p>(&'p Purged);

impl Entry for PurgedRecord<'_> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.value("level", "INFO");
        writer.value("message", "purged");
        writer.value("PurgedSessions", &AsCount::from(self.0.sessions));
        writer.value("PurgedVerifications", &AsCount::from(self.0.verifications));
        writer.value("PurgedIdempotencyKeys", &AsCount::from(self.0.idempotency_keys));
        writer.value("PurgedRemovals", &AsCount::from(self.0.removals));
    }
}
