//! Runs statements: one round trip each, with timeouts, and a second attempt where that is safe.
use crate::{
    connection::pool::Connection,
    error::Error,
    jwt::known::KnownKeys,
    metrics::Measures,
    settings::{RENEW_AFTER_REFUSAL_S, Settings, Snapshot},
    statement::{Parameters, Statement},
};
use deadpool_postgres::PoolError;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Row, error::SqlState};

/// Timeout of a statement in seconds, including its wait in a pooler. If it does not wait, the API role's
/// `statement_timeout` ends it in the server before that.
const STATEMENT_TIMEOUT_S: u64 = 10;
/// Timeout of all connecting and all attempts of a statement together, in seconds.
const REQUEST_TIMEOUT_S: u64 = 18;
/// Seconds until the server notices a closed connection and aborts its statement: the API role's
/// `client_connection_check_interval` is half of this. A failed write waits this long before the 503, so that it cannot
/// commit after it.
const ENDED_AFTER_S: u64 = 1;
/// Seconds within which a connect or a statement must have failed to be retried: the client waits for both attempts. A
/// refused password is retried in any case.
const RETRY_WITHIN_S: u64 = 2;

/// The database, for one request or for Init. It adds the time it takes to `measures`.
#[derive(Clone)]
pub(crate) struct Database {
    settings: Arc<Settings>,
    snapshot: Arc<Snapshot>,
    measures: Arc<Measures>,
}

impl Database {
    /// Uses the database of `snapshot`. If that refuses the password, `settings` are read again.
    pub(crate) fn new(settings: Arc<Settings>, snapshot: Arc<Snapshot>, measures: Arc<Measures>) -> Self {
        Self { settings, snapshot, measures }
    }

    /// What is learned about the request.
    pub(crate) fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Connects before the first request, within `limit`: Lambda gives Init a whole CPU, and requests a fraction of
    /// one.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<(), Error> {
        // The idle time starts here: the first request may come much later.
        self.connection_within(limit).await?.mark_used();
        Ok(())
    }

    /// Like [`Database::connection`], within `limit`.
    async fn connection_within(&self, limit: Duration) -> Result<Connection, Error> {
        let late = || Error::Unavailable(format!("no connection within {:.1} s", limit.as_secs_f32()));
        timeout(limit, self.connection()).await.map_err(|_| late())?
    }

    /// Returns a connection to use now. A connect that failed at once is retried: nothing was sent yet that could
    /// happen twice. If the password was refused, the retry uses the current settings.
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

    /// How many tasks one user may have.
    pub(crate) fn max_tasks_per_user(&self) -> i64 {
        self.snapshot.max_tasks_per_user
    }

    /// Whether sessions are looked up by their token, because the database cannot find them by its digest.
    pub(crate) fn looks_up_tokens(&self) -> bool {
        self.snapshot.looks_up_tokens.load(Ordering::Relaxed)
    }

    /// From now on, sessions are looked up by their token. Nothing is prepared then: who has the API's password could read a
    /// prepared statement's parameters at the pooler.
    pub(crate) fn look_up_tokens(&self) {
        self.snapshot.looks_up_tokens.store(true, Ordering::Relaxed);
    }

    /// The keys of JWTs, as far as they are known.
    pub(crate) fn jwt_keys(&self) -> &KnownKeys {
        &self.snapshot.jwt_keys
    }

    /// Runs a statement in one round trip. If the connection is lost, it runs once more where that is safe.
    pub(crate) async fn run(&self, statement: &Statement, parameters: Parameters<'_>) -> Result<Vec<Row>, Failure> {
        let began = Instant::now();
        let mut may_repeat = statement.is_repeatable();
        let mut may_prepare = statement.may_be_prepared() && !self.looks_up_tokens();
        loop {
            let left = || Duration::from_secs(REQUEST_TIMEOUT_S).saturating_sub(began.elapsed());
            let connection = self.connection_within(left()).await?;
            let is_prepared = may_prepare && connection.uses_prepared_statements();
            let limit = left().min(Duration::from_secs(STATEMENT_TIMEOUT_S));
            let sent = Instant::now();
            let result = timeout(limit, connection.send(statement.sql(), parameters, is_prepared)).await;
            self.measures.add_database_time(sent.elapsed());
            let error = match result {
                Ok(Ok(rows)) => {
                    connection.mark_used();
                    return Ok(rows);
                }
                // Who has the API's password can replace a prepared statement by one that fails like this. Only the
                // answer to the statement's own text shows what the schema has.
                Ok(Err(error)) if is_undefined_function(&error) && is_prepared => {
                    self.measures.count_retry();
                    may_prepare = false;
                    continue;
                }
                Ok(Err(error)) if is_undefined_function(&error) => {
                    return Err(Failure::UndefinedFunction(error.into()));
                }
                Ok(Err(error)) if !connection.is_lost(&error) => return Err(Failure::Other(error.into())),
                Ok(Err(_)) if may_repeat && began.elapsed().as_secs() < RETRY_WITHIN_S => {
                    connection.close();
                    self.measures.count_retry();
                    may_repeat = false;
                    continue;
                }
                Ok(Err(error)) => error.into(),
                Err(_) => Error::Unavailable(format!("no answer to a statement within {} s", limit.as_secs())),
            };
            // The statement may still be running, and the next one would wait behind it. The server aborts it once it
            // notices the closed connection. A cancel request could crash PgBouncer as a whole
            // (github.com/pgbouncer/pgbouncer/issues/801).
            connection.close();
            if !statement.is_repeatable() {
                sleep(Duration::from_secs(ENDED_AFTER_S)).await;
            }
            return Err(Failure::Other(error));
        }
    }
}

/// A statement that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The database has no function of this name and type: its schema is not the one that this binary was built for.
    UndefinedFunction(Error),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::UndefinedFunction(error) | Failure::Other(error) => error,
        }
    }
}

/// Whether the statement calls a function that the database does not have. Nothing of it has taken effect.
fn is_undefined_function(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNDEFINED_FUNCTION)
}

/// Whether the server refused the login (class 28: the password may have changed). Older versions of PgBouncer report
/// that as a protocol violation.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("28") || *code == SqlState::PROTOCOL_VIOLATION)
}
