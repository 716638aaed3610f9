//! Runs the migrations that are embedded in this crate: up, down, and where a database stands.
//!
//! What is pending runs in one transaction, under a lock that a second run waits for. sqlx's table `_sqlx_migrations` says
//! what has been applied, with a checksum.
use shared::{DatabaseUrl, Roots};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{collections::BTreeMap, fmt};

/// The role that the API connects as, made by a migration.
pub const API_ROLE: &str = "tasks_api";

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Why a migration did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pooler hands each transaction to any server connection: the migrations' lock would not hold.
    #[error(
        "names a pooled endpoint (-pooler), through which migrations cannot run: take the direct one, the same host without -pooler"
    )]
    Pooled,
    /// The migrations' driver would connect to the host.
    #[error("has a hostaddr, which migrations do not support: take the URL without it")]
    HasAddress,
    /// What was applied is not what is in the folder.
    #[error(
        "migration {0:04} was changed after it was applied: put it back as it was, and make the change a new migration"
    )]
    Changed(i64),
    /// The database is ahead of this checkout.
    #[error("migration {0:04} has been applied but is not in this version of the project")]
    Unknown(i64),
    /// A check of what has not been made yet.
    #[error("migration {0:04} is pending: apply it first")]
    Pending(i64),
    /// Down from nothing.
    #[error("no migration is applied")]
    NothingApplied,
    /// One failed, and has left nothing behind.
    #[error("migration {version:04} failed and was rolled back: {}", message(cause))]
    Failed {
        /// The migration's number.
        version: i64,
        /// What the database says.
        cause: sqlx::Error,
    },
    /// The database did not do as it was told.
    #[error("{}", message(.0))]
    Database(#[from] sqlx::Error),
    /// Another failure of the library's.
    #[error("{0}")]
    Other(MigrateError),
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMismatch(version) => Self::Changed(version),
            MigrateError::VersionMissing(version) => Self::Unknown(version),
            MigrateError::ExecuteMigration(cause, version) => Self::Failed { version, cause },
            MigrateError::Execute(error) => Self::Database(error),
            other => Self::Other(other),
        }
    }
}

/// What the database says, without what the library puts around it.
fn message(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// How a migration stands in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It has been run.
    Applied,
    /// It has not.
    Pending,
    /// It has been run, and its file has been changed since.
    Changed,
    /// It has been run by another version of the project, which has a file for it.
    Unknown,
}

/// A migration and how it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: i64,
    /// Its name, in words.
    pub description: String,
    /// How it stands.
    pub state: State,
}

impl fmt::Display for Migration {
    /// As its file is named: `0003 tasks`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04} {}", self.version, self.description)
    }
}

/// Connects as the owner, to the direct endpoint.
///
/// # Errors
/// [`Error::Pooled`] for Neon's pooled endpoints, [`Error::HasAddress`] for a URL with `hostaddr`, and what the database says.
pub async fn connect(url: &DatabaseUrl) -> Result<PgConnection, Error> {
    if url.is_neon_pooler() {
        return Err(Error::Pooled);
    }
    if url.has_address() {
        return Err(Error::HasAddress);
    }
    connect_anywhere(url).await
}

/// Connects with any URL, the API's pooled one included, as to find out whether it is right.
///
/// # Errors
/// What the database says.
pub async fn connect_anywhere(url: &DatabaseUrl) -> Result<PgConnection, Error> {
    let mut options = PgConnectOptions::new_without_pgpass()
        .port(url.port())
        .username(url.user())
        .database(url.database())
        .application_name("migrations")
        .ssl_mode(if url.uses_tls() { PgSslMode::VerifyFull } else { PgSslMode::Disable });
    options = if url.host().starts_with('/') { options.socket(url.host()) } else { options.host(url.host()) };
    if let Some(password) = url.password() {
        options = options.password(&password);
    }
    if let Roots::File(path) = url.roots() {
        options = options.ssl_root_cert(path);
    }
    // One that is slow would be logged with its text, and with it the API role's password.
    Ok(PgConnection::connect_with(&options.disable_statement_logging()).await?)
}

/// Applies what is pending, in order, and fits the session check to Better Auth's columns; gives what was applied.
///
/// All of it is one transaction: one that fails leaves the database as it was. Only where a pending migration says that it
/// cannot run in one (`-- no-transaction`), each stands for itself.
///
/// # Errors
/// The first that fails.
pub async fn up(connection: &mut PgConnection) -> Result<Vec<Migration>, Error> {
    let needs_none = |it: &Migration| MIGRATOR.iter().any(|known| known.version == it.version && known.no_tx);
    if status(connection).await?.iter().any(|it| it.state == State::Pending && needs_none(it)) {
        return apply(connection).await;
    }
    let mut transaction = connection.begin().await?;
    // A second run waits here, and then finds nothing pending.
    sqlx::query("select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('migrations'))")
        .execute(&mut *transaction)
        .await?;
    let applied = apply(&mut transaction).await?;
    transaction.commit().await?;
    Ok(applied)
}

async fn apply(connection: &mut PgConnection) -> Result<Vec<Migration>, Error> {
    let pending: Vec<_> = status(connection).await?.into_iter().filter(|it| it.state == State::Pending).collect();
    // One by one, because only then the error says which failed.
    for migration in &pending {
        MIGRATOR.run_to(migration.version, &mut *connection).await?;
    }
    // Nothing is left to do, but for what was applied this checks that it has not been changed since.
    MIGRATOR.run(&mut *connection).await?;
    // Better Auth may have renamed its columns since.
    sqlx::raw_sql("select migration_tools.install_caller()").execute(connection).await?;
    Ok(pending.into_iter().map(|it| Migration { state: State::Applied, ..it }).collect())
}

/// Reverts the last migration, or all that are after `target`, and tells `reverted` of each.
///
/// # Errors
/// The first that fails; those before it stay reverted.
pub async fn down(
    connection: &mut PgConnection,
    target: Option<i64>,
    mut reverted: impl FnMut(&Migration),
) -> Result<(), Error> {
    let applied: Vec<_> = status(connection).await?.into_iter().filter(|it| it.state != State::Pending).collect();
    let Some(last) = applied.last() else { return Err(Error::NothingApplied) };
    let target = target.unwrap_or(last.version - 1);
    for migration in applied.iter().rev().filter(|it| it.version > target) {
        MIGRATOR.undo(&mut *connection, migration.version - 1).await?;
        reverted(&Migration { state: State::Pending, ..migration.clone() });
    }
    Ok(())
}

/// Every migration that the project or the database knows, in order. Changes nothing.
///
/// # Errors
/// What the database says.
pub async fn status(connection: &mut PgConnection) -> Result<Vec<Migration>, Error> {
    // Not by to_regclass: its cache does not notice what was made while this transaction waited for a lock.
    let is_new: bool = sqlx::query_scalar(
        "select not exists (select from pg_class where relname = '_sqlx_migrations' and pg_table_is_visible(oid))",
    )
    .fetch_one(&mut *connection)
    .await?;
    let applied: Vec<(i64, String, Vec<u8>)> = if is_new {
        Vec::new()
    } else {
        sqlx::query_as("select version, description, checksum from _sqlx_migrations").fetch_all(connection).await?
    };
    let mut migrations: BTreeMap<i64, Migration> = applied
        .iter()
        .map(|(version, description, _)| {
            (*version, Migration { version: *version, description: description.clone(), state: State::Unknown })
        })
        .collect();
    for known in MIGRATOR.iter().filter(|it| it.migration_type.is_up_migration()) {
        let state = match applied.iter().find(|(version, ..)| *version == known.version) {
            None => State::Pending,
            Some((.., checksum)) if *checksum == *known.checksum => State::Applied,
            Some(_) => State::Changed,
        };
        let migration = Migration { version: known.version, description: known.description.to_string(), state };
        migrations.insert(known.version, migration);
    }
    Ok(migrations.into_values().collect())
}

/// Where the database is not what the migrations made of it, a sentence each; nothing when it is. Changes nothing.
///
/// # Errors
/// [`Error::Pending`] before all migrations have been applied, and what the database says.
pub async fn check(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    if let Some(pending) = status(connection).await?.iter().find(|it| it.state == State::Pending) {
        return Err(Error::Pending(pending.version));
    }
    for table in ["user", "session", "account", "verification", "tasks", "idempotency_keys"] {
        let is_there: bool = sqlx::query_scalar("select to_regclass(format('public.%I', $1::text)) is not null")
            .bind(table)
            .fetch_one(&mut *connection)
            .await?;
        if !is_there {
            return Ok(vec![format!("the table {table} is missing")]);
        }
    }
    let mut differences: Vec<String> =
        sqlx::query_scalar(include_str!("check.sql")).fetch_all(&mut *connection).await?;
    // A function's text is only read when it runs: the columns that it names may have gone.
    if differences.is_empty()
        && let Err(error) = sqlx::query("select from public.caller('')").execute(connection).await
    {
        differences.push(format!("the function caller(text) fails, and 'up' fits it again: {}", message(&error)));
    }
    Ok(differences)
}

/// Lets the API's role connect, with this password.
///
/// It reaches the server as it is, because Neon takes no hashed one: a server that logs statements logs it.
///
/// # Errors
/// What the database says; never the password.
pub async fn set_api_password(connection: &mut PgConnection, password: &str) -> Result<(), Error> {
    let statement: String =
        sqlx::query_scalar("select pg_catalog.format('alter role %I login password %L', $1::text, $2::text)")
            .bind(API_ROLE)
            .bind(password)
            .fetch_one(&mut *connection)
            .await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}
