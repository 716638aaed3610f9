//! The pool of connections, and TLS as the database's URL asks for it.
use crate::{
    clock::WallClock,
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

/// A connection idle for longer than this is tried before it is used, in seconds: a frozen process sees no goodbye.
const IDLE_CHECK_AFTER_S: u64 = 60;
/// How long that try may take, in seconds.
const IDLE_CHECK_TIMEOUT_S: u64 = 2;

/// The settings of a function that works with the database, and no session.
pub struct DatabaseConfig {
    /// Where the tasks are. `DATABASE_URL`.
    pub url: DatabaseUrl,
    /// Whether statements are prepared, once for each connection. `PREPARED_STATEMENTS`; only for Neon's hosts.
    pub prepared_statements: bool,
    /// How many requests one process serves at a time. `AWS_LAMBDA_MAX_CONCURRENCY`, set by Lambda; 1 without it.
    pub max_concurrency: usize,
}

/// A pool of connections, made from one state of the settings.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: Pool,
    last_used: Arc<WallClock>,
    prepares: bool,
}

impl Connections {
    /// Prepares the pool; nothing is connected yet.
    ///
    /// # Errors
    /// One sentence when the URL's `sslrootcert` cannot be read, or TLS cannot be set up.
    pub(crate) fn new(config: &DatabaseConfig) -> Result<Self, String> {
        let url = &config.url;
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = if url.uses_tls() {
            Manager::from_config(url.config().clone(), tls(url)?, manager_config)
        } else {
            Manager::from_config(url.config().clone(), NoTls, manager_config)
        };
        // The URL's connect_timeout covers one address of the TCP connect; this bounds the whole handshake.
        let connect_timeout = url.config().get_connect_timeout().copied();
        let last_used = Arc::new(WallClock::default());
        let pool = Pool::builder(manager)
            .max_size(config.max_concurrency)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts { wait: connect_timeout, create: connect_timeout, recycle: None })
            .pre_recycle(refuse_if_dead(last_used.clone()))
            .build()
            .map_err(|error| format!("the connection pool cannot be built: {error}"))?;
        Ok(Self { pool, last_used, prepares: config.prepared_statements })
    }

    /// A connection from the pool, or a new one.
    ///
    /// # Errors
    /// The pool's own: a new connection cannot be made.
    pub(crate) async fn get(&self) -> Result<Connection, PoolError> {
        let client = self.pool.get().await?;
        Ok(Connection { client, last_used: self.last_used.clone(), prepares: self.prepares })
    }
}

/// A connection, and what is known of the pool that it comes from.
pub(crate) struct Connection {
    client: Object,
    last_used: Arc<WallClock>,
    prepares: bool,
}

impl Connection {
    /// Sends a statement: one round trip. Where connections prepare their statements, the first use takes one more, and all
    /// others save the server parsing and planning.
    pub(crate) async fn send(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.prepares {
            return self.client.query_typed(sql, parameters).await;
        }
        let (values, types): (Vec<_>, Vec<_>) = parameters.iter().cloned().unzip();
        let statement = self.client.prepare_typed_cached(sql, &types).await?;
        self.client.query(&statement, &values).await
    }

    /// Whether it was made for this use, and did not come from the pool.
    pub(crate) fn is_new(&self) -> bool {
        Object::metrics(&self.client).recycled.is_none()
    }

    /// Whether a statement failed because the connection ended, on its own or by the server's word.
    pub(crate) fn is_lost(&self, error: &tokio_postgres::Error) -> bool {
        let said_goodbye = |code: &SqlState| {
            [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(code) || code.code().starts_with("08")
        };
        self.client.is_closed() || error.is_closed() || error.code().is_some_and(said_goodbye)
    }

    /// Notes that the server has answered.
    pub(crate) fn set_used(&self) {
        self.last_used.set_now();
    }

    /// Closes it: it does not go back to the pool.
    pub(crate) fn close(self) {
        drop(Object::take(self.client));
    }
}

/// TLS as the URL asks for it.
fn tls(url: &DatabaseUrl) -> Result<MakeTlsConnector, String> {
    let wrong = |problem| format!("DATABASE_URL has an sslrootcert {problem}");
    if url.config().get_ssl_negotiation() != SslNegotiation::Direct {
        return roots::connector(url.roots()).map(MakeTlsConnector::new).map_err(wrong);
    }
    let mut builder = roots::builder(url.roots()).map_err(wrong)?;
    // A server that takes TLS without asking first wants it named (PostgreSQL 17, protocol flow, SSL).
    postgres_native_tls::set_postgresql_alpn(&mut builder);
    builder.build().map(MakeTlsConnector::new).map_err(|error| format!("TLS cannot be set up: {error}"))
}

/// Refuses a pooled connection that is closed or, when it was idle for long, does not answer.
fn refuse_if_dead(last_used: Arc<WallClock>) -> Hook {
    Hook::async_fn(move |client, _| {
        let last_used = last_used.clone();
        Box::pin(async move {
            // The connection's task gets to run, and sees a server's goodbye that has already arrived.
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
