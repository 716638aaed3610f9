//! Removing what has expired: rows that nothing else removes, because nobody asks for them any more.
use crate::{Error, serve::Job};
use metrique_writer::{Entry, EntryWriter, unit::AsCount};
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// How many rows one statement removes at most: it holds its locks for some milliseconds only.
const MAX_ROWS_PER_STATEMENT: i32 = 1000;
/// How long before Lambda's deadline the last statement begins, in seconds: longer than a statement may take.
const MARGIN_S: u64 = 15;

/// How many rows were removed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Sessions that nobody has opened since they expired: Better Auth removes one only when it meets it.
    pub sessions: u64,
    /// Better Auth's expired verifications, such as links to reset a password that nobody followed.
    pub verifications: u64,
    /// Idempotency keys older than a day, which no longer count.
    pub idempotency_keys: u64,
    /// Whether all that had expired is gone; what is left goes the next time.
    pub is_complete: bool,
}

/// Removes expired rows, batch by batch, until none is left or the job's time is up.
///
/// # Errors
/// What the database says; the batches before it stay removed.
pub async fn purge(job: Job) -> Result<Purged, Error> {
    let mut purged = Purged::default();
    let until = job.deadline.checked_sub(Duration::from_secs(MARGIN_S)).unwrap_or(SystemTime::UNIX_EPOCH);
    loop {
        let sessions = job.housekeeper.remove_expired_sessions(MAX_ROWS_PER_STATEMENT).await?;
        let verifications = job.housekeeper.remove_expired_verifications(MAX_ROWS_PER_STATEMENT).await?;
        let idempotency_keys = job.housekeeper.remove_old_idempotency_keys(MAX_ROWS_PER_STATEMENT).await?;
        purged.sessions += sessions;
        purged.verifications += verifications;
        purged.idempotency_keys += idempotency_keys;
        purged.is_complete =
            sessions.max(verifications).max(idempotency_keys) < u64::from(MAX_ROWS_PER_STATEMENT.unsigned_abs());
        if purged.is_complete || SystemTime::now() >= until {
            break;
        }
    }
    job.metrics.write(&PurgedRecord(&purged));
    Ok(purged)
}

struct PurgedRecord<'p>(&'p Purged);

impl Entry for PurgedRecord<'_> {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.value("level", "INFO");
        writer.value("message", "purged");
        writer.value("PurgedSessions", &AsCount::from(self.0.sessions));
        writer.value("PurgedVerifications", &AsCount::from(self.0.verifications));
        writer.value("PurgedIdempotencyKeys", &AsCount::from(self.0.idempotency_keys));
    }
}
