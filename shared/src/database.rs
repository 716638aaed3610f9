//! The one way to the database: every statement runs as a [`Caller`] and proves the session as it runs.
use crate::{
    DatabaseConfig, DatabaseUrl, Error,
    clock::WallClock,
    connection::roots,
    credential::SessionToken,
    error::AuthFailure,
    metrics::Measures,
    settings::{RENEW_AFTER_REFUSAL_S, RENEW_AFTER_S, Settings},
};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use postgres_native_tls::MakeTlsConnector;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use tokio_postgres::{
    NoTls, Row,
    config::SslNegotiation,
    error::SqlState,
    types::{ToSql, Type},
};

/// How long a statement may take, in seconds, with what it waits for in a pooler. The API role's `statement_timeout` ends it
/// in the server before that, if it did not have to wait.
const STATEMENT_TIMEOUT_S: u64 = 10;
/// How long connecting and statements may take together, in seconds.
const REQUEST_TIMEOUT_S: u64 = 18;
/// After this time the server has found its client gone and ended the statement, in seconds: the API role's
/// `client_connection_check_interval` is half of it. Only then a write is answered as failed, so that it is not done later.
const ENDED_AFTER_S: u64 = 1;
/// What failed is tried once more only when it failed within this time, in seconds: a client waits for both.
const RETRY_WITHIN_S: u64 = 2;
/// A connection idle for longer than this is tried before it is used, in seconds: a frozen process sees no goodbye.
const IDLE_CHECK_AFTER_S: u64 = 60;
/// How long that try may take, in seconds.
const IDLE_CHECK_TIMEOUT_S: u64 = 2;

/// A statement's parameters with their types, so that it needs no round trip to ask for them.
pub(crate) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

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
}

/// A connection, and what is known of the pool that it comes from.
struct Connection {
    client: Object,
    last_used: Arc<WallClock>,
    prepares: bool,
}

impl Connection {
    /// Sends a statement: one round trip. Where connections prepare their statements, the first use takes one more, and all
    /// others save the server parsing and planning.
    async fn send(&self, sql: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, tokio_postgres::Error> {
        if !self.prepares {
            return self.client.query_typed(sql, parameters).await;
        }
        let (values, types): (Vec<_>, Vec<_>) = parameters.iter().cloned().unzip();
        let statement = self.client.prepare_typed_cached(sql, &types).await?;
        self.client.query(&statement, &values).await
    }
}

/// The database, for one request or for Init, of which it measures the time that it takes.
#[derive(Clone)]
pub(crate) struct Database {
    settings: Arc<Settings>,
    measures: Arc<Measures>,
}

impl Database {
    pub(crate) fn new(settings: Arc<Settings>, measures: Arc<Measures>) -> Self {
        Self { settings, measures }
    }

    /// Connects ahead of the first request, within `limit`: Lambda gives a whole CPU to Init, and a fraction of one afterwards.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<(), Error> {
        // A process that waits long for its first request has a connection that was idle as long.
        self.connection_within(limit).await?.last_used.set_now();
        Ok(())
    }

    /// As [`Database::connection`], for as long as `limit`.
    async fn connection_within(&self, limit: Duration) -> Result<Connection, Error> {
        let late = || Error::Unavailable(format!("no connection within {:.1} s", limit.as_secs_f32()));
        timeout(limit, self.connection()).await.map_err(|_| late())?
    }

    /// A connection to use now. A connect that failed at once is tried once more: nothing has been sent that could happen
    /// twice. One whose password is refused is tried with the settings as they are now.
    async fn connection(&self) -> Result<Connection, Error> {
        let began = Instant::now();
        let Connections { pool, last_used, prepares } = self.settings.current(RENEW_AFTER_S).await?.connections;
        let (client, last_used) = match pool.get().await {
            Ok(client) => (client, last_used),
            Err(PoolError::Backend(error)) if is_refusal(&error) => {
                self.measures.count_retry();
                let Connections { pool, last_used, .. } =
                    self.settings.current(RENEW_AFTER_REFUSAL_S).await?.connections;
                (pool.get().await?, last_used)
            }
            Err(PoolError::Backend(_)) if began.elapsed().as_secs() < RETRY_WITHIN_S => {
                self.measures.count_retry();
                (pool.get().await?, last_used)
            }
            Err(error) => return Err(error.into()),
        };
        if Object::metrics(&client).recycled.is_none() {
            self.measures.add_connect_time(began.elapsed());
        }
        Ok(Connection { client, last_used, prepares })
    }

    /// Runs a statement: one round trip. After a lost connection it runs once more if that does no harm.
    async fn run(&self, statement: &Statement, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        let began = Instant::now();
        let mut may_repeat = statement.is_repeatable;
        loop {
            let left = || Duration::from_secs(REQUEST_TIMEOUT_S).saturating_sub(began.elapsed());
            let connection = self.connection_within(left()).await?;
            let limit = left().min(Duration::from_secs(STATEMENT_TIMEOUT_S));
            let sent = Instant::now();
            let result = timeout(limit, connection.send(statement.sql, parameters)).await;
            self.measures.add_database_time(sent.elapsed());
            let Connection { client, last_used, .. } = connection;
            let error = match result {
                Ok(Ok(rows)) => {
                    last_used.set_now();
                    return Ok(rows);
                }
                Ok(Err(error)) if !is_lost(&client, &error) => return Err(error.into()),
                Ok(Err(_)) if may_repeat && began.elapsed().as_secs() < RETRY_WITHIN_S => {
                    drop(Object::take(client));
                    self.measures.count_retry();
                    may_repeat = false;
                    continue;
                }
                Ok(Err(error)) => error.into(),
                Err(_) => Error::Unavailable(format!("no answer to a statement within {} s", limit.as_secs())),
            };
            // The statement may still be under way, and the next one would wait behind it. The server ends it when it finds
            // its client gone. A request to cancel it could end PgBouncer as a whole (github.com/pgbouncer/pgbouncer/issues/801).
            drop(Object::take(client));
            if !statement.is_repeatable {
                sleep(Duration::from_secs(ENDED_AFTER_S)).await;
            }
            return Err(error);
        }
    }
}

/// What may be run without a session: whether the database answers.
#[derive(Clone)]
pub struct Probe(pub(crate) Database);

impl Probe {
    /// Asks the database for nothing, in one round trip.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it does not answer.
    pub async fn ping(&self) -> Result<(), Error> {
        self.0.run(&Statement { sql: "select", is_repeatable: true }, &[]).await.map(drop)
    }
}

/// What a scheduled job may do: remove what has expired. Nobody's live session and no task is within its reach.
#[derive(Clone)]
pub(crate) struct Housekeeper(pub(crate) Database);

impl Housekeeper {
    /// Removes expired sessions, at most `max_rows`, and gives how many.
    pub(crate) async fn remove_expired_sessions(&self, max_rows: i32) -> Result<u64, Error> {
        self.remove("select public.purge_expired('session', $1)", max_rows).await
    }

    /// Removes expired verifications, at most `max_rows`, and gives how many.
    pub(crate) async fn remove_expired_verifications(&self, max_rows: i32) -> Result<u64, Error> {
        self.remove("select public.purge_expired('verification', $1)", max_rows).await
    }

    /// Removes idempotency keys that no longer count, at most `max_rows`, and gives how many.
    pub(crate) async fn remove_old_idempotency_keys(&self, max_rows: i32) -> Result<u64, Error> {
        let sql = "with removed as (
                delete from idempotency_keys where ctid = any (array(
                    select ctid from idempotency_keys
                    where created_at <= now() at time zone 'utc' - interval '24 hours'
                    order by created_at limit $1
                    for update skip locked))
                returning 1)
            select count(*) from removed";
        self.remove(sql, max_rows).await
    }

    async fn remove(&self, sql: &'static str, max_rows: i32) -> Result<u64, Error> {
        let rows = self.0.run(&Statement { sql, is_repeatable: true }, &[(&max_rows, Type::INT4)]).await?;
        let removed: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(removed.unsigned_abs())
    }
}

/// The person asking. Only [`crate::serve()`] makes one, and every statement proves the session as it runs.
#[derive(Clone)]
pub struct Caller {
    database: Database,
    token: SessionToken,
    /// The user whom the path names, in `/api/{user_id}/tasks`.
    path_user_id: Option<String>,
    has_asked: Arc<AtomicBool>,
}

impl Caller {
    pub(crate) fn new(database: Database, token: SessionToken, path_user_id: Option<String>) -> Self {
        // PostgreSQL takes no U+0000, so no user's id has one; replaced, it is still nobody's.
        let path_user_id = path_user_id.map(|id| id.replace('\0', "\u{FFFD}"));
        Self { database, token, path_user_id, has_asked: Arc::default() }
    }

    /// The path's user, when it names one: the caller, or else no statement succeeds.
    pub fn path_user_id(&self) -> Option<&str> {
        self.path_user_id.as_deref()
    }

    /// Runs a statement as this caller and gives its rows, of which there is at least one.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without a live session, [`Error::Forbidden`] when the path names another user, and what
    /// the database says.
    pub(crate) async fn query(&self, statement: Statement, parameters: Parameters<'_>) -> Result<Vec<Row>, Error> {
        self.has_asked.store(true, Ordering::Relaxed);
        let token = self.token.secret();
        let mut all: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(2 + parameters.len());
        all.push((&token, Type::TEXT));
        all.push((&self.path_user_id, Type::TEXT));
        all.extend_from_slice(parameters);

        let rows = self.database.run(&statement, &all).await?;
        let first = rows.first().ok_or(Error::Unauthenticated(AuthFailure::NoSession))?;
        if first.try_get("mine")? { Ok(rows) } else { Err(Error::Forbidden("The path names another user.")) }
    }

    /// As [`Caller::query`], for statements that give one row.
    pub(crate) async fn query_one(&self, statement: Statement, parameters: Parameters<'_>) -> Result<Row, Error> {
        self.query(statement, parameters)
            .await?
            .into_iter()
            .next()
            .ok_or(Error::Unauthenticated(AuthFailure::NoSession))
    }

    /// Makes sure that the session has been proven before a request that asked the database nothing is answered: a wrong
    /// title is nobody's business without a session.
    pub(crate) async fn prove(&self) -> Result<(), Error> {
        if self.has_asked.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.query(authorised_read!("1", ""), &[]).await.map(drop)
    }
}

/// SQL that starts from the caller. [`authorised!`] and [`authorised_read!`] make them; other text does not compile.
#[derive(Clone, Copy)]
pub(crate) struct Statement {
    sql: &'static str,
    is_repeatable: bool,
}

impl Statement {
    /// Checked while compiling: the text asks for the caller, and its last part reads from that.
    pub(crate) const fn new(sql: &'static str) -> Self {
        assert!(
            contains(sql, "from caller($1)"),
            "the statement does not ask for the caller: make it with authorised! or authorised_read!"
        );
        assert!(contains(sql, "mine"), "the statement does not say whether the path's user is the caller (mine)");
        assert!(
            contains(sql, " from s") || contains(sql, "from caller($1) s"),
            "the statement does not read from s, the caller"
        );
        Self { sql, is_repeatable: true }
    }

    /// For statements that do something else when they run twice.
    pub(crate) const fn never_repeated(self) -> Self {
        Self { is_repeatable: false, ..self }
    }
}

/// A statement that begins with `s`: the caller's row, or none without a live session. `$1` is the token, `$2` the user
/// whom the path names or null; the statement's own parameters begin at `$3`.
///
/// No row is 401, `mine` false is 403; what a null means is the statement's.
macro_rules! authorised {
    ($($sql:tt)+) => {
        const {
            $crate::database::Statement::new(concat!(
                "with s as (\
                 select user_id, expires_at, ($2 is null or user_id::text = $2) as mine from caller($1)) ",
                $($sql)+
            ))
        }
    };
}
pub(crate) use authorised;

/// As [`authorised!`], for a statement that only reads: columns, and what is joined to `s`. PostgreSQL plans it faster than
/// one with a query in front, and it plans every statement anew.
///
/// What is joined is the caller's own, by `s.user_id`, also where the path names somebody else: 403 hides it.
macro_rules! authorised_read {
    ($columns:literal, $($joined:tt)+) => {
        const {
            $crate::database::Statement::new(concat!(
                "select ($2 is null or s.user_id::text = $2) as mine, ",
                $columns,
                " from caller($1) s ",
                $($joined)+
            ))
        }
    };
}
pub(crate) use authorised_read;

const fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let mut rest = text;
    while rest.len() >= part.len() {
        let (head, _) = rest.split_at(part.len());
        let mut remaining = (head, part);
        while let ([a, left @ ..], [b, right @ ..]) = remaining {
            if *a != *b {
                break;
            }
            remaining = (left, right);
        }
        if remaining.1.is_empty() {
            return true;
        }
        rest = rest.split_at(1).1;
    }
    false
}

/// Whether a statement failed because its connection ended, on its own or by the server's word.
fn is_lost(client: &Object, error: &tokio_postgres::Error) -> bool {
    let said_goodbye = |code: &SqlState| {
        [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN].contains(code) || code.code().starts_with("08")
    };
    client.is_closed() || error.is_closed() || error.code().is_some_and(said_goodbye)
}

/// Whether the server did not let us in (class 28: its password may have been changed). PgBouncer says so as a protocol
/// violation in its older versions.
fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("28") || *code == SqlState::PROTOCOL_VIOLATION)
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
