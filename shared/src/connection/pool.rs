//! The connection pool, and TLS as the database URL configures it.
use crate::{
    clock::LastTime,
    connection::{roots, url::DatabaseUrl},
    statement::Parameters,
};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use postgres_native_tls::MakeTlsConnector;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_postgres::{NoTls, Row, config::SslNegotiation, error::SqlState};

/// Idle seconds after which a connection is checked before use: a frozen process does not notice that the server has
/// closed it.
const IDLE_CHECK_AFTER_S: u64 = 60;
/// Timeout of that check, in seconds.
const IDLE_CHECK_TIMEOUT_S: u64 = 2;

/// The settings of a function that uses the database but checks no sessions.
pub struct DatabaseConfig {
    /// `DATABASE_URL`: the database with the tasks.
    pub url: DatabaseUrl,
    /// `PREPARED_STATEMENTS`: whether each connection prepares a statement once and reuses it. Only for Neon's hosts.
    pub prepared_statements: bool,
    /// `AWS_LAMBDA_MAX_CONCURRENCY`, set by Lambda: how many requests one process serves at a time. The default is 1.
    pub max_concurrency: usize,
}

/// A connection pool for one snapshot of the settings.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: Pool,
    last_used: Arc<LastTime>,
    uses_prepared_statements: bool,
}

impl Connections {
    /// Creates the pool. It does not connect yet.
    ///
    /// # Errors
    /// A one-sentence message if the URL's `sslrootcert` cannot be read, or TLS cannot be set up.
    pub(crate) fn new(config: &DatabaseConfig) -> Result<Self, String> {
        let url = &config.url;
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if url.uses_tls() {
            Manager::from_config(url.config().clone(), tls(url)?, manager_config)
        } else {
            Manager::from_config(url.config().clone(), NoTls, manager_config)
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
        Ok(Self { pool, last_used, uses_prepared_statements: config.prepared_statements })
    }

    /// Returns a connection from the pool, or a new one.
    ///
    /// # Errors
    /// If a new connection cannot be made, as the pool reports it.
    pub(crate) async fn get(&self) -> Result<Connection, PoolError> {
        let client = self.pool.get().await?;
        Ok(Connection {
            client,
            last_used: self.last_used.clone(),
            uses_prepared_statements: self.uses_prepared_statements,
        })
    }
}

/// A connection, and the state that it shares with its pool.
pub(crate) struct Connection {
    client: Object,
    last_used: Arc<LastTime>,
    uses_prepared_statements: bool,
}

impl Connection {
    /// Sends a statement in one round trip. If it is prepared, the first use on a connection takes one more, and later uses
    /// save the server parsing and planning.
    pub(crate) async fn send(
        &self,
        sql: &str,
        parameters: Parameters<'_>,
        is_prepared: bool,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !is_prepared {
            return self.client.query_typed(sql, parameters).await;
        }
        let (values, types): (Vec<_>, Vec<_>) = parameters.iter().cloned().unzip();
        let statement = self.client.prepare_typed_cached(sql, &types).await?;
        self.client.query(&statement, &values).await
    }

    /// Whether the settings allow preparing statements.
    pub(crate) fn uses_prepared_statements(&self) -> bool {
        self.uses_prepared_statements
    }

    /// Whether the connection was made for this use, not reused from the pool.
    pub(crate) fn is_new(&self) -> bool {
        Object::metrics(&self.client).recycled.is_none()
    }

    /// Whether a statement failed because the connection ended, on its own or because the server ended it.
    pub(crate) fn is_lost(&self, error: &tokio_postgres::Error) -> bool {
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

/// Creates the TLS connector that the URL asks for.
fn tls(url: &DatabaseUrl) -> Result<MakeTlsConnector, String> {
    let wrong = |problem| format!("DATABASE_URL has an sslrootcert {problem}");
    if url.config().get_ssl_negotiation() != SslNegotiation::Direct {
        return roots::connector(url.roots()).map(MakeTlsConnector::new).map_err(wrong);
    }
    let mut builder = roots::builder(url.roots()).map_err(wrong)?;
    // Direct TLS, without a request for it first, requires the protocol's name in ALPN (PostgreSQL 17, protocol flow,
    // SSL).
    postgres_native_tls::set_postgresql_alpn(&mut builder);
    builder.build().map(MakeTlsConnector::new).map_err(|error| format!("TLS cannot be set up: {error}"))
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
