//! Runs statements: one round trip each, with timeouts, and a second attempt where that is safe.
use crate::{
    connection::pool::{Connection, ToPrepare},
    error::Error,
    jwt::known::KnownKeys,
    metrics::Measures,
    settings::{RENEW_AFTER_REFUSAL_S, Settings, Snapshot},
    statement::{Parameters, Statement, is_mismatch, parameter_types},
};
use deadpool_postgres::PoolError;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Row, error::SqlState, types::Type};

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
    ///
    /// Where statements are prepared, a connection prepares them behind the first statement that it runs or, if that writes, after
    /// its answer. If the server refuses to execute a prepared one, it runs once more, unnamed: the refusal had no effect.
    pub(crate) async fn run(&self, statement: &Statement, parameters: Parameters<'_>) -> Result<Vec<Row>, Failure> {
        let began = Instant::now();
        let mut may_repeat = statement.is_repeatable();
        loop {
            let left = || Duration::from_secs(REQUEST_TIMEOUT_S).saturating_sub(began.elapsed());
            let connection = self.connection_within(left()).await?;
            let limit = left().min(Duration::from_secs(STATEMENT_TIMEOUT_S));
            let sent = Instant::now();
            let result = timeout(limit, self.send(&connection, statement, parameters)).await;
            self.measures.add_database_time(sent.elapsed());
            let error = match result {
                Ok(Ok(rows)) => {
                    connection.mark_used();
                    return Ok(rows);
                }
                // Who has the API's password can replace a prepared statement by one that fails like this. Only the
                // answer to the statement's own text shows what the schema has.
                Ok(Err(Refusal { error, prepared: Some(id) }))
                    if connection.is_answer(&error) && is_about_statement(&error) =>
                {
                    self.stop_preparing(&error, Some(id));
                    self.measures.count_retry();
                    continue;
                }
                Ok(Err(Refusal { error, .. })) if is_undefined_function(&error) => {
                    return Err(Failure::UndefinedFunction(error.into()));
                }
                Ok(Err(Refusal { error, .. })) if !connection.is_lost(&error) => {
                    return Err(Failure::Other(error.into()));
                }
                Ok(Err(_)) if may_repeat && began.elapsed().as_secs() < RETRY_WITHIN_S => {
                    connection.close();
                    self.measures.count_retry();
                    may_repeat = false;
                    continue;
                }
                Ok(Err(Refusal { error, .. })) => error.into(),
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

    /// Executes the statement if the connection has prepared it. Otherwise it runs unnamed, and what the connection lacks is
    /// prepared behind it, or after it if it writes.
    async fn send(
        &self,
        connection: &Connection,
        statement: &Statement,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Refusal> {
        let unnamed = |error| Refusal { error, prepared: None };
        if !self.snapshot.prepares.load(Ordering::Relaxed) || self.looks_up_tokens() {
            return connection.send(statement.sql(), parameters).await.map_err(unnamed);
        }
        let types = || parameters.iter().map(|(_, kind)| kind);
        let id = statement.may_be_prepared().then(|| statement.id(types()));
        if let Some(prepared) = id.and_then(|id| connection.prepared(id)) {
            let refusal = |error| Refusal { error, prepared: Some(prepared.id) };
            return connection.execute(&prepared, parameters).await.map_err(refusal);
        }
        let to_prepare = || {
            let mut statements = if connection.begins_to_prepare() { self.usual_statements() } else { Vec::new() };
            if let Some(id) = id.filter(|id| statements.iter().all(|it| it.id != *id)) {
                statements.push(to_prepare_with(statement, id, types().cloned().collect()));
            }
            statements
        };
        let (rows, known_name) = if statement.is_write() {
            // Nothing is sent behind a write. PgBouncer has a buffer of 4 kB for a client that waits for a server connection.
            // If the client closes, and has sent no more than that, PgBouncer forgets it. Otherwise it delivers what it has
            // to the server, and the write would be committed after its 503.
            let rows = connection.send(statement.sql(), parameters).await.map_err(unnamed)?;
            (Ok(rows), connection.prepare(&to_prepare()).await)
        } else {
            connection.send_and_prepare(statement.sql(), parameters, &to_prepare()).await
        };
        if let Some(error) = known_name {
            self.stop_preparing(&error, None);
        }
        rows.map_err(unnamed)
    }

    /// The statements that this function usually runs, for each credential that it accepts.
    fn usual_statements(&self) -> Vec<ToPrepare> {
        let accepts_jwts = self.snapshot.accepts_jwts();
        let with_types = |statement: &'static Statement| {
            parameter_types(statement, accepts_jwts)
                .map(|types| to_prepare_with(statement, statement.id(&types), types))
        };
        self.settings.statements.iter().filter(|it| it.may_be_prepared()).flat_map(with_types).collect()
    }

    /// From now on, this process prepares nothing: the pooler mixes statements up, or the schema has changed.
    fn stop_preparing(&self, error: &tokio_postgres::Error, id: Option<i64>) {
        if !self.snapshot.prepares.swap(false, Ordering::Relaxed) {
            return;
        }
        let answer = error.as_db_error();
        let is_mixed_up = id.zip(answer).is_some_and(|(id, answer)| is_mismatch(answer, id));
        let cause =
            if is_mixed_up { "the connection had another function's statement under the name" } else { "refused" };
        let sqlstate = answer.map(|answer| answer.code().code());
        tracing::warn!(sqlstate, cause, "statements are no longer prepared by this process: see PREPARED_STATEMENTS");
    }
}

/// The statement as it is prepared, with these types of its parameters.
fn to_prepare_with(statement: &Statement, id: i64, mut types: Vec<Type>) -> ToPrepare {
    let sql = statement.guarded_sql(id, types.len());
    types.push(Type::INT8);
    ToPrepare { id, sql, types }
}

/// A statement that failed in the driver, the server or the network.
struct Refusal {
    error: tokio_postgres::Error,
    /// The id, if a prepared statement was executed.
    prepared: Option<i64>,
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

/// Whether the error can come from the statement that the server has under a prepared statement's name, not from the one that
/// was meant: none of that name (26000), other parameters (08P01, or values that cannot be decoded, class 22), the guard
/// (22P02), other columns than before a migration (0A000), or an object that the schema lacks (class 42).
///
/// The server has ended the statement without effect.
fn is_about_statement(error: &tokio_postgres::Error) -> bool {
    let classes = ["08", "0A", "22", "26", "42", "54"];
    error.code().is_some_and(|code| classes.iter().any(|class| code.code().starts_with(class)))
}

/// Whether the server refused the login (class 28: the password may have changed). Older versions of PgBouncer report
/// that as a protocol violation.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("28") || *code == SqlState::PROTOCOL_VIOLATION)
}
