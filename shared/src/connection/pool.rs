//! The connection pool, and TLS as the database URL configures it.
use crate::{
    clock::LastTime,
    connection::{
        direct::{self, DirectFirst},
        roots,
        url::DatabaseUrl,
    },
    statement::Parameters,
};
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    StatementCache, Timeouts,
};
use futures_util::future::{Either, join_all, select};
use postgres_native_tls::MakeTlsConnector;
use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::time::timeout;
use tokio_postgres::{
    Error, NoTls, Row, Statement,
    config::SslNegotiation,
    error::{DbError, Severity, SqlState},
    types::{ToSql, Type},
};

/// Idle seconds after which a connection is checked before use: a frozen process does not notice that the server has
/// closed it.
const IDLE_CHECK_AFTER_S: u64 = 60;
/// Timeout of that check, in seconds.
const IDLE_CHECK_TIMEOUT_S: u64 = 2;
/// Milliseconds that a call waits, once it has its own answer, for those of the statements prepared behind it. They arrive
/// together, unless the network fails just then. What is not prepared by then is prepared at its first use.
const PREPARE_TIMEOUT_MS: u64 = 100;

/// The settings of a function that uses the database but checks no sessions.
pub struct DatabaseConfig {
    /// `DATABASE_URL`: the database with the tasks.
    pub url: DatabaseUrl,
    /// `PREPARED_STATEMENTS`: whether each connection prepares statements once and reuses them. `None` is `auto`.
    pub prepared_statements: Option<bool>,
    /// `AWS_LAMBDA_MAX_CONCURRENCY`, set by Lambda: how many requests one process serves at a time. The default is 1.
    pub max_concurrency: usize,
}

impl DatabaseConfig {
    /// Whether statements are prepared. By itself for Neon's hosts only: its pooler tracks their names.
    pub(crate) fn prepares(&self) -> bool {
        self.prepared_statements.unwrap_or_else(|| self.url.is_neon())
    }
}

/// A connection pool for one snapshot of the settings.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: Pool,
    last_used: Arc<LastTime>,
    prepared: Arc<PreparedStatements>,
}

impl Connections {
    /// Creates the pool. It does not connect yet.
    ///
    /// # Errors
    /// A one-sentence message if the URL's `sslrootcert` cannot be read, or TLS cannot be set up.
    pub(crate) fn new(config: &DatabaseConfig) -> Result<Self, String> {
        let url = &config.url;
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let settings = url.config().clone();
        let wrong = |problem| format!("DATABASE_URL has an sslrootcert {problem}");
        let manager = if !url.uses_tls() {
            Manager::from_config(settings, NoTls, manager_config)
        } else if url.tries_direct_tls() {
            Manager::from_connect(settings, DirectFirst::new(url.roots()).map_err(wrong)?, manager_config)
        } else if settings.get_ssl_negotiation() == SslNegotiation::Direct {
            Manager::from_config(settings, direct::connector(url.roots()).map_err(wrong)?, manager_config)
        } else {
            let connector = MakeTlsConnector::new(roots::connector(url.roots()).map_err(wrong)?);
            Manager::from_config(settings, connector, manager_config)
        };
        // The URL's connect_timeout covers only the TCP connect to one address. Here it limits the whole handshake.
        let connect_timeout = url.config().get_connect_timeout().copied();
        let last_used = Arc::new(LastTime::default());
        let pool = Pool::builder(manager)
            .max_size(config.max_concurrency)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: connect_timeout, create: connect_timeout, recycle: None })
            .pre_recycle(reject_dead_connection(last_used.clone()))
            .build()
            .map_err(|error| format!("the connection pool cannot be built: {error}"))?;
        Ok(Self { pool, last_used, prepared: Arc::default() })
    }

    /// Returns a connection from the pool, or a new one.
    ///
    /// # Errors
    /// If a new connection cannot be made, as the pool reports it.
    pub(crate) async fn get(&self) -> Result<Connection, PoolError> {
        let client = self.pool.get().await?;
        Ok(Connection { client, last_used: self.last_used.clone(), prepared: self.prepared.clone() })
    }
}

/// A connection, and the state that it shares with its pool.
pub(crate) struct Connection {
    client: Object,
    last_used: Arc<LastTime>,
    prepared: Arc<PreparedStatements>,
}

impl Connection {
    /// Sends a statement in one round trip, without preparing it.
    pub(crate) async fn send(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        self.client.query_typed(sql, parameters).await
    }

    /// Executes a prepared statement in one round trip. It fails if the server has another one under its name, on which it
    /// then has no effect.
    pub(crate) async fn execute(&self, prepared: &Prepared, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        let values = parameters.iter().map(|(value, _)| *value).chain([&prepared.id as &(dyn ToSql + Sync)]);
        self.client.query(&prepared.statement, &values.collect::<Vec<_>>()).await
    }

    /// Sends a statement as [`Connection::send`] does, and behind it, in the same round trip, prepares others. Returns the
    /// first error of preparing that shows that the connection already has a statement of this name.
    pub(crate) async fn send_and_prepare(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
        to_prepare: &[ToPrepare],
    ) -> (Result<Vec<Row>, Error>, Option<Error>) {
        // Each future sends its messages as it is first polled, and `select` polls the statement's first.
        let rows = pin!(self.send(sql, parameters));
        let (rows, results) = match select(rows, pin!(self.send_to_prepare(to_prepare))).await {
            Either::Left((rows, results)) => (rows, within_prepare_timeout(results).await),
            Either::Right((results, rows)) => (rows.await, results),
        };
        (rows, self.keep(to_prepare, results))
    }

    /// Prepares statements in one round trip. Returns an error as [`Connection::send_and_prepare`] does.
    pub(crate) async fn prepare(&self, to_prepare: &[ToPrepare]) -> Option<Error> {
        self.keep(to_prepare, within_prepare_timeout(self.send_to_prepare(to_prepare)).await)
    }

    async fn send_to_prepare(&self, to_prepare: &[ToPrepare]) -> Vec<Result<Statement, Error>> {
        join_all(to_prepare.iter().map(|it| self.client.prepare_typed(&it.sql, &it.types))).await
    }

    fn keep(&self, to_prepare: &[ToPrepare], results: Vec<Result<Statement, Error>>) -> Option<Error> {
        let mut known_name = None;
        for (it, result) in to_prepare.iter().zip(results) {
            match result {
                Ok(statement) => self.prepared.insert(&self.client, Prepared { id: it.id, statement }),
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_PSTATEMENT) => known_name = Some(error),
                // As where the schema lacks a form of caller(). The statement itself will say so.
                Err(error) => {
                    let sqlstate = error.code().map(SqlState::code);
                    tracing::debug!(sqlstate, cause = error.to_string(), "a statement cannot be prepared");
                }
            }
        }
        known_name
    }

    /// Returns the prepared statement with this id, or `None` if this connection has not prepared it.
    pub(crate) fn prepared(&self, id: i64) -> Option<Prepared> {
        self.prepared.get(&self.client, id)
    }

    /// Returns true on the first call for this connection only.
    pub(crate) fn begins_to_prepare(&self) -> bool {
        self.prepared.begin(&self.client)
    }

    /// Whether the connection was made for this use, not reused from the pool.
    pub(crate) fn is_new(&self) -> bool {
        Object::metrics(&self.client).recycled.is_none()
    }

    /// Whether a statement failed and the connection goes on: the server has answered, and waits for the next statement.
    pub(crate) fn is_answer(&self, error: &Error) -> bool {
        let goes_on = |error: &DbError| error.parsed_severity() == Some(Severity::Error);
        !self.client.is_closed() && error.as_db_error().is_some_and(goes_on)
    }

    /// Whether a statement failed because the connection ended, on its own or because the server ended it.
    pub(crate) fn is_lost(&self, error: &Error) -> bool {
        let ended_by_server = |code: &SqlState| {
            [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(code) || code.code().starts_with("08")
        };
        self.client.is_closed() || error.is_closed() || error.code().is_some_and(ended_by_server)
    }

    /// Records that the server has answered.
    pub(crate) fn mark_used(&self) {
        self.last_used.set_now();
    }

    /// Closes the connection instead of returning it to the pool.
    pub(crate) fn close(self) {
        drop(Object::take(self.client));
    }
}

/// Waits for prepared statements as long as a call may. None of them counts after that.
async fn within_prepare_timeout(
    results: impl Future<Output = Vec<Result<Statement, Error>>>,
) -> Vec<Result<Statement, Error>> {
    timeout(Duration::from_millis(PREPARE_TIMEOUT_MS), results).await.unwrap_or_default()
}

/// A statement to prepare.
pub(crate) struct ToPrepare {
    pub(crate) id: i64,
    /// The text with its guard.
    pub(crate) sql: String,
    /// The types of all parameters, with that of the id at the end.
    pub(crate) types: Vec<Type>,
}

/// A statement that a connection has prepared.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) id: i64,
    statement: Statement,
}

/// The prepared statements of each open connection. Statements are not closed: behind a pooler that does not track names, that
/// would close another process's. They end with their connection.
#[derive(Default)]
struct PreparedStatements(Mutex<Vec<(Weak<StatementCache>, Vec<Prepared>)>>);

impl PreparedStatements {
    /// Adds the connection. Returns whether it is new.
    fn begin(&self, client: &ClientWrapper) -> bool {
        let mut connections = self.lock();
        if connections.iter().any(|(it, _)| is_of(it, client)) {
            return false;
        }
        connections.retain(|(connection, _)| connection.strong_count() > 0);
        connections.push((Arc::downgrade(&client.statement_cache), Vec::new()));
        true
    }

    fn insert(&self, client: &ClientWrapper, prepared: Prepared) {
        if let Some((_, statements)) = self.lock().iter_mut().find(|(it, _)| is_of(it, client)) {
            statements.push(prepared);
        }
    }

    fn get(&self, client: &ClientWrapper, id: i64) -> Option<Prepared> {
        let connections = self.lock();
        let (_, statements) = connections.iter().find(|(it, _)| is_of(it, client))?;
        statements.iter().find(|it| it.id == id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Weak<StatementCache>, Vec<Prepared>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this is the connection. Its cache, which stays empty, identifies it: the driver has no other name for it.
fn is_of(connection: &Weak<StatementCache>, client: &ClientWrapper) -> bool {
    connection.as_ptr() == Arc::as_ptr(&client.statement_cache)
}

/// Rejects a pooled connection that is closed, or that does not answer after a long idle time.
fn reject_dead_connection(last_used: Arc<LastTime>) -> Hook {
    Hook::async_fn(move |client, _| {
        let last_used = last_used.clone();
        Box::pin(async move {
            // Let the connection's task run, so that it notices a close by the server that has already arrived.
            tokio::task::yield_now().await;
            if client.is_closed() {
                return Err(HookError::message("closed by the server"));
            }
            if last_used.seconds_ago().is_some_and(|idle_s| idle_s > IDLE_CHECK_AFTER_S) {
                let limit = Duration::from_secs(IDLE_CHECK_TIMEOUT_S);
                match timeout(limit, client.simple_query("")).await {
                    Ok(Ok(_)) => last_used.set_now(),
                    _ => return Err(HookError::message("no answer after a long idle time")),
                }
            }
            Ok(())
        })
    })
}
