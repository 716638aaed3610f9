//! Running statements: one round trip each, with deadlines, and a second attempt where that does no harm.
use crate::{
    connection::pool::Connection,
    error::Error,
    metrics::Measures,
    settings::{RENEW_AFTER_REFUSAL_S, Settings, Snapshot},
    statement::{Parameters, Statement},
};
use deadpool_postgres::PoolError;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Row, error::SqlState};

/// How long a statement may take, in seconds, with what it waits for in a pooler. The API role's `statement_timeout` ends it
/// in the server before that, if it did not have to wait.
const STATEMENT_TIMEOUT_S: u64 = 10;
/// How long connecting and statements may take together, in seconds.
const REQUEST_TIMEOUT_S: u64 = 18;
/// Seconds until the server notices a closed connection and aborts its statement: the API role's
/// `client_connection_check_interval` is half of it. A failed write waits this long before the 503, so that it cannot commit
/// after it.
const ENDED_AFTER_S: u64 = 1;
/// What failed is tried once more only when it failed within this time, in seconds: a client waits for both.
const RETRY_WITHIN_S: u64 = 2;

/// The database, for one request or for Init, of which it measures the time that it takes.
#[derive(Clone)]
pub(crate) struct Database {
    settings: Arc<Settings>,
    snapshot: Arc<Snapshot>,
    measures: Arc<Measures>,
}

impl Database {
    /// The database of `snapshot`; `settings` are asked again where it refuses the password.
    pub(crate) fn new(settings: Arc<Settings>, snapshot: Arc<Snapshot>, measures: Arc<Measures>) -> Self {
        Self { settings, snapshot, measures }
    }

    /// Connects ahead of the first request, within `limit`: Lambda gives a whole CPU to Init, and a fraction of one afterwards.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<(), Error> {
        // A process that waits long for its first request has a connection that was idle as long.
        self.connection_within(limit).await?.set_used();
        Ok(())
    }

    /// Like [`Database::connection`], within `limit`.
    async fn connection_within(&self, limit: Duration) -> Result<Connection, Error> {
        let late = || Error::Unavailable(format!("no connection within {:.1} s", limit.as_secs_f32()));
        timeout(limit, self.connection()).await.map_err(|_| late())?
    }

    /// A connection to use now. A connect that failed at once is tried once more: nothing has been sent that could happen
    /// twice. One whose password is refused is tried with the settings as they are now.
    async fn connection(&self) -> Result<Connection, Error> {
        let began = Instant::now();
        let connections = &self.snapshot.connections;
        let connection = match connections.get().await {
            Ok(connection) => connection,
            Err(PoolError::Backend(error)) if is_refusal(&error) => {
                self.measures.count_retry();
                self.settings.current(RENEW_AFTER_REFUSAL_S).await?.connections.get().await?
            }
            Err(PoolError::Backend(_)) if began.elapsed().as_secs() < RETRY_WITHIN_S => {
                self.measures.count_retry();
                connections.get().await?
            }
            Err(error) => return Err(error.into()),
        };
        if connection.is_new() {
            self.measures.add_connect_time(began.elapsed());
        }
        Ok(connection)
    }

    /// Runs a statement: one round trip. After a lost connection it runs once more if that does no harm.
    pub(crate) async fn run(&self, statement: &Statement, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        let began = Instant::now();
        let mut may_repeat = statement.is_repeatable();
        loop {
            let left = || Duration::from_secs(REQUEST_TIMEOUT_S).saturating_sub(began.elapsed());
            let connection = self.connection_within(left()).await?;
            let limit = left().min(Duration::from_secs(STATEMENT_TIMEOUT_S));
            let sent = Instant::now();
            let result = timeout(limit, connection.send(statement.sql(), parameters)).await;
            self.measures.add_database_time(sent.elapsed());
            let error = match result {
                Ok(Ok(rows)) => {
                    connection.set_used();
                    return Ok(rows);
                }
                Ok(Err(error)) if !connection.is_lost(&error) => return Err(error.into()),
                Ok(Err(_)) if may_repeat && began.elapsed().as_secs() < RETRY_WITHIN_S => {
                    connection.close();
                    self.measures.count_retry();
                    may_repeat = false;
                    continue;
                }
                Ok(Err(error)) => error.into(),
                Err(_) => Error::Unavailable(format!("no answer to a statement within {} s", limit.as_secs())),
            };
            // The statement may still be under way, and the next one would wait behind it. The server ends it when it finds
            // its client gone. A request to cancel it could end PgBouncer as a whole (github.com/pgbouncer/pgbouncer/issues/801).
            connection.close();
            if !statement.is_repeatable() {
                sleep(Duration::from_secs(ENDED_AFTER_S)).await;
            }
            return Err(error);
        }
    }
}

/// Whether the server did not let us in (class 28: its password may have been changed). PgBouncer says so as a protocol
/// violation in its older versions.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("28") || *code == SqlState::PROTOCOL_VIOLATION)
}
