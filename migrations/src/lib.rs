//! Runs the migrations that are embedded in this crate, up and down, and reports the state of a database.
//!
//! Pending migrations run in one transaction, under a lock that makes a concurrent run wait. sqlx's table
//! `_sqlx_migrations` records the applied migrations, each with a checksum.
use shared::{DatabaseUrl, Roots};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The role that the API connects as. A migration creates it.
pub const API_ROLE: &str = "tasks_api";

/// The error code of a deadlock (SQLSTATE).
const DEADLOCK: &str = "40P01";
/// How often a revert that a deadlock has ended is tried again.
const MAX_TRIES: usize = 5;

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// A failure to run, revert or check migrations.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL is of a pooler. It assigns each transaction to any server connection, so the migrations' lock would not
    /// hold.
    #[error(
        "names a pooled endpoint (-pooler), through which migrations cannot run: use the direct one, the same host without -pooler"
    )]
    Pooled,
    /// The URL has a `hostaddr`. It would be ignored, and the connection would go to the host.
    #[error("has a hostaddr, which migrations do not support: use the URL without it")]
    HasAddress,
    /// The applied migration differs from its file.
    #[error(
        "migration {0:04} was changed after it was applied: restore the file, and make the change in a new migration"
    )]
    Changed(i64),
    /// The database is ahead of this checkout.
    #[error("migration {0:04} has been applied but is not in this version of the project")]
    Unknown(i64),
    /// A check was requested before all migrations were applied.
    #[error("migration {0:04} is pending: apply it first")]
    Pending(i64),
    /// A revert was requested, but no migration is applied.
    #[error("no migration is applied")]
    NothingApplied,
    /// A migration failed and was rolled back.
    #[error("migration {version:04} failed and was rolled back: {}", message(cause))]
    Failed { version: i64, cause: sqlx::Error },
    /// Another error from the database or the connection.
    #[error("{}", message(.0))]
    Database(sqlx::Error),
    /// Another error from sqlx's migrator.
    #[error("{0}")]
    Other(MigrateError),
}

impl Error {
    fn is_deadlock(&self) -> bool {
        let (Self::Failed { cause, .. } | Self::Database(cause)) = self else { return false };
        cause.as_database_error().is_some_and(|error| error.code().as_deref() == Some(DEADLOCK))
    }
}

// Not #[from], which makes it the source: the message would be printed twice.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
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

/// The server's own message, or sqlx's if the error is not from the server.
fn message(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

/// The state of a migration in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Applied,
    Pending,
    /// Applied, but its file was changed afterwards.
    Changed,
    /// Applied by another version of the project, and this version has no file for it.
    Unknown,
}

/// A migration and its state in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migration {
    pub version: i64,
    /// The words of its file name.
    pub description: String,
    pub state: State,
}

impl fmt::Display for Migration {
    /// Writes number and description, like the file name: `0003 tasks`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04} {}", self.version, self.description)
    }
}

/// Connects as the owner role, to the direct endpoint.
///
/// # Errors
/// [`Error::Pooled`] for Neon's pooled endpoints, [`Error::HasAddress`] for a URL with `hostaddr`, and any error of the
/// connection.
pub async fn connect(url: &DatabaseUrl) -> Result<PgConnection, Error> {
    if url.is_neon_pooler() {
        return Err(Error::Pooled);
    }
    if url.has_address() {
        return Err(Error::HasAddress);
    }
    connect_anywhere(url).await
}

/// Connects with any URL, even the API's pooled one, for example to find out whether the URL works.
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
    // sqlx logs slow statements with their text, which for one of them contains the API role's password.
    Ok(PgConnection::connect_with(&options.disable_statement_logging()).await?)
}

/// The tables that [`up`] makes where it finds none of Better Auth's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthTables {
    /// [`AuthTables::Schema`], unless a table looks like one of Better Auth's: then an error that names it.
    #[default]
    IfNoneIsSimilar,
    /// The tables of the schema specification (docs/schema.md).
    Schema,
    /// The tables that Better Auth's own migration makes for a configuration that renames nothing.
    BetterAuth,
    /// No table: Better Auth's own migration runs later, and then `up` once more.
    None,
}

impl FromStr for AuthTables {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "schema" => Ok(Self::Schema),
            "better-auth" => Ok(Self::BetterAuth),
            "none" => Ok(Self::None),
            other => Err(format!("{other:?} is not one of schema, better-auth and none")),
        }
    }
}

impl AuthTables {
    /// The name by which migration 0013 knows it.
    fn setting(self) -> &'static str {
        match self {
            Self::IfNoneIsSimilar => "",
            Self::Schema => "schema",
            Self::BetterAuth => "better-auth",
            Self::None => "none",
        }
    }
}

/// How [`up`] treats Better Auth's tables.
#[derive(Debug, Clone, Default)]
pub struct AuthOptions {
    /// The tables to make if the database has none of Better Auth's.
    pub tables: AuthTables,
    /// The only schema to search, instead of `public` and `neon_auth`. `AUTH_SCHEMA`.
    pub schema: Option<String>,
    /// Takes the rights that other roles have on tables that were there before, and switches row-level security on for
    /// these, too.
    pub closes_adopted_tables: bool,
}

impl AuthOptions {
    /// Reads `AUTH_TABLES` (`schema`, `better-auth` or `none`) and `AUTH_SCHEMA`. A blank value counts as not set.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn from_settings(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let tables = get("AUTH_TABLES").map(|text| text.parse()).transpose();
        Ok(Self {
            tables: tables.map_err(|error| format!("AUTH_TABLES: {error}"))?.unwrap_or_default(),
            schema: get("AUTH_SCHEMA"),
            closes_adopted_tables: false,
        })
    }
}

/// The tables in which the session check finds users and sessions, with what each holds, or an empty list as long as Better
/// Auth has none.
///
/// # Errors
/// [`Error::Database`], also before [`up`].
pub async fn auth_tables(connection: &mut PgConnection) -> Result<Vec<(String, String)>, Error> {
    let tables = sqlx::query_as(
        "select kind, pg_catalog.format('%I.%I', nspname, relname) from migration_tools.auth_tables
        join pg_catalog.pg_class on pg_class.oid = tab join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
        where kind in ('session', 'user') order by kind",
    );
    Ok(tables.fetch_all(connection).await?)
}

/// Finds Better Auth's tables, applies the pending migrations in order, adapts the session check to the tables, closes the
/// tables to other roles, and returns what it applied.
///
/// Everything runs in one transaction, so a failure leaves the database as it was. The exception is a pending migration
/// that is marked `-- no-transaction`: then each pending migration commits on its own.
///
/// # Errors
/// The first migration that fails.
pub async fn up(connection: &mut PgConnection, auth: AuthOptions) -> Result<Vec<Migration>, Error> {
    with_own_names(connection, async |connection| {
        let runs_without_transaction =
            |it: &Migration| MIGRATOR.iter().any(|known| known.version == it.version && known.no_tx);
        if states(connection).await?.iter().any(|it| it.state == State::Pending && runs_without_transaction(it)) {
            return apply(connection, &auth).await;
        }
        let mut transaction = connection.begin().await?;
        // A concurrent run waits here, and then finds nothing pending.
        sqlx::query("select pg_advisory_xact_lock(hashtext('migrations'))").execute(&mut *transaction).await?;
        let applied = apply(&mut transaction, &auth).await?;
        transaction.commit().await?;
        Ok(applied)
    })
    .await
}

/// Runs `work` while names and operators are looked up in `pg_catalog` alone: what others put into `public` does not change
/// what they mean.
async fn with_own_names<T>(
    connection: &mut PgConnection,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
) -> Result<T, Error> {
    sqlx::raw_sql("set search_path = pg_catalog, pg_temp").execute(&mut *connection).await?;
    let result = work(connection).await;
    let reset = sqlx::raw_sql("reset search_path").execute(connection).await;
    // The first error is the cause.
    let result = result?;
    reset?;
    Ok(result)
}

async fn apply(connection: &mut PgConnection, auth: &AuthOptions) -> Result<Vec<Migration>, Error> {
    let pending: Vec<_> = states(connection).await?.into_iter().filter(|it| it.state == State::Pending).collect();
    let migrator = migrator(connection).await?;
    choose_auth_tables(connection, auth).await?;
    // One at a time, because otherwise the error would not identify the migration.
    for migration in &pending {
        if migration.version == FIRST_WITH_AUTH_TABLES {
            prepare_auth_tables(connection).await?;
        }
        migrator.run_to(migration.version, &mut *connection).await?;
    }
    // Nothing is pending now, but this call checks the applied migrations against their checksums.
    migrator.run(&mut *connection).await?;
    // Better Auth may have renamed its tables or columns since the last run.
    sqlx::raw_sql("select migration_tools.install_caller()").execute(&mut *connection).await?;
    // After it, because what is made anew gets the rights that roles have by default.
    sqlx::raw_sql("select migration_tools.settle_rights()").execute(&mut *connection).await?;
    sqlx::raw_sql("select migration_tools.settle_sync()").execute(connection).await?;
    Ok(pending.into_iter().map(|it| Migration { state: State::Applied, ..it }).collect())
}

/// The migration that makes Better Auth's tables where `public` has none.
const FIRST_WITH_AUTH_TABLES: i64 = 2;
/// The migration with the functions that find Better Auth's tables.
const FINDS_AUTH_TABLES: i64 = 13;

/// The embedded migrations, with the name of the database's table for them.
async fn migrator(connection: &mut PgConnection) -> Result<Migrator, Error> {
    let mut migrator = Migrator::with_migrations(MIGRATOR.iter().cloned().collect());
    migrator
        .dangerous_set_table_name(ledger(connection).await?.unwrap_or_else(|| "public._sqlx_migrations".to_owned()));
    Ok(migrator)
}

/// The table in which sqlx records what is applied, or `None` before the first migration.
async fn ledger(connection: &mut PgConnection) -> Result<Option<String>, Error> {
    // Not to_regclass: its cache misses a table that was created while this transaction waited for a lock. The first that
    // PostgreSQL's default search_path, "$user", public, finds.
    let ledger = sqlx::query_scalar(
        "select format('%I.%I', nspname, relname) from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where relname = '_sqlx_migrations' and nspname in (session_user, 'public')
        order by nspname = 'public' limit 1",
    );
    Ok(ledger.fetch_optional(connection).await?)
}

/// Passes the options to the functions of migrations 0013 and 0017.
async fn choose_auth_tables(connection: &mut PgConnection, auth: &AuthOptions) -> Result<(), Error> {
    sqlx::query(
        "select set_config('migration_tools.auth_tables', $1, false), set_config('migration_tools.auth_schema', $2, false),
            set_config('migration_tools.row_security', $3, false)",
    )
    .bind(auth.tables.setting())
    .bind(auth.schema.as_deref().unwrap_or_default())
    .bind(if auth.closes_adopted_tables { "force" } else { "" })
    .execute(connection)
    .await?;
    Ok(())
}

/// Defines the functions of migration 0013 ahead of their turn: the migrations before it make tables of their own where they
/// find none in `public`.
async fn prepare_auth_tables(connection: &mut PgConnection) -> Result<(), Error> {
    let finds = |it: &&sqlx::migrate::Migration| it.version == FINDS_AUTH_TABLES && it.migration_type.is_up_migration();
    if let Some(definitions) = MIGRATOR.iter().find(finds) {
        sqlx::raw_sql(definitions.sql.clone()).execute(&mut *connection).await?;
    }
    sqlx::raw_sql("select migration_tools.prepare_auth_tables()").execute(connection).await?;
    Ok(())
}

/// Reverts the last migration, or all migrations after `target`, and calls `reverted` for each.
///
/// # Errors
/// The first migration that fails. Those reverted before it stay reverted.
pub async fn down(
    connection: &mut PgConnection,
    target: Option<i64>,
    mut reverted: impl FnMut(&Migration),
) -> Result<(), Error> {
    with_own_names(connection, async |connection| {
        let applied: Vec<_> = states(connection).await?.into_iter().filter(|it| it.state != State::Pending).collect();
        let Some(last) = applied.last() else { return Err(Error::NothingApplied) };
        let target = target.unwrap_or(last.version - 1);
        let migrator = migrator(connection).await?;
        for migration in applied.iter().rev().filter(|it| it.version > target) {
            undo(&mut *connection, &migrator, migration.version - 1).await?;
            reverted(&Migration { state: State::Pending, ..migration.clone() });
        }
        Ok(())
    })
    .await
}

/// Reverts the migrations after `target`. The role `tasks_api` is common to all databases of a server: if another database is
/// being reverted, PostgreSQL can end one of the two with a deadlock. That one was rolled back, and tries again.
async fn undo(connection: &mut PgConnection, migrator: &Migrator, target: i64) -> Result<(), Error> {
    let mut tries = 1..=MAX_TRIES;
    loop {
        let Err(error) = migrator.undo(&mut *connection, target).await else { return Ok(()) };
        match Error::from(error) {
            error if tries.next().is_some() && error.is_deadlock() => {}
            error => return Err(error),
        }
    }
}

/// Returns every migration that the project or the database knows, in order. Changes nothing.
pub async fn status(connection: &mut PgConnection) -> Result<Vec<Migration>, Error> {
    with_own_names(connection, states).await
}

async fn states(connection: &mut PgConnection) -> Result<Vec<Migration>, Error> {
    let applied: Vec<(i64, String, Vec<u8>)> = match ledger(connection).await? {
        None => Vec::new(),
        Some(ledger) => {
            let applied = format!("select version, description, checksum from {ledger}");
            sqlx::query_as(AssertSqlSafe(applied)).fetch_all(connection).await?
        }
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

/// Compares the database with what the migrations create. Returns a sentence for each difference, and for each way in which
/// the API's role can reach sessions, passwords or signing keys. Changes nothing.
///
/// # Errors
/// [`Error::Pending`] if a migration is pending, and any error of the connection.
pub async fn check(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    with_own_names(connection, async |connection| {
        match states(connection).await?.iter().find(|it| it.state == State::Pending) {
            Some(pending) => Err(Error::Pending(pending.version)),
            None => differences(connection).await,
        }
    })
    .await
}

/// Returns what an operator should know, although it may be intended: the ways in which other roles than the API's can reach
/// sessions, passwords or signing keys, tables without row-level security, and sessions from the future. Changes nothing.
///
/// # Errors
/// [`Error::Database`], also before [`up`].
pub async fn notes(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    with_own_names(connection, async |connection| {
        let mut notes = ways_in(connection, Who::Others).await?;
        notes.extend(
            sqlx::query_scalar::<_, String>(include_str!("row_security.sql")).fetch_all(&mut *connection).await?,
        );
        notes.extend(sessions_from_the_future(connection).await?);
        Ok(notes)
    })
    .await
}

/// Whose access is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The API's role.
    Api,
    /// All roles but the API's, the owner's and superusers.
    Others,
}

/// The ways to sessions, passwords and signing keys.
async fn ways_in(connection: &mut PgConnection, who: Who) -> Result<Vec<String>, Error> {
    let ways: Vec<(bool, String)> = sqlx::query_as(include_str!("access.sql")).fetch_all(connection).await?;
    Ok(ways.into_iter().filter(|(is_api, _)| *is_api == (who == Who::Api)).map(|(_, sentence)| sentence).collect())
}

/// A sentence about sessions that began later than now, if there are any: node-postgres writes local time into a column
/// without a time zone, so that a session ends hours too late.
async fn sessions_from_the_future(connection: &mut PgConnection) -> Result<Option<String>, Error> {
    // Only among the sessions that end last: an index finds these.
    let query: Option<String> = sqlx::query_scalar(
        "select format('select max(extract(epoch from %1$I - %4$s))::float8 from (select %1$I from %3$s order by %2$I desc limit 1000) newest',
            creation, expiry, tab,
            case when (select atttypid = 'timestamptz'::regtype from pg_attribute where attrelid = tab and attname = creation)
                then 'now()' else 'now() at time zone ''utc''' end)
        from migration_tools.auth_tables
        cross join lateral (select migration_tools.column_name(tab, '{created_at,createdAt}') as creation,
            migration_tools.column_name(tab, '{expires_at,expiresAt}') as expiry) as columns
        where kind = 'session' and creation is not null and expiry is not null",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(query) = query else { return Ok(None) };
    let ahead_s: Option<f64> = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(connection).await?;
    Ok(ahead_s.filter(|ahead| *ahead > MAX_CLOCK_DIFFERENCE_S).map(|ahead| {
        format!(
            "a session began {:.0} minutes from now: does the front end write local time instead of UTC? See docs/authentication.md",
            ahead / 60.0
        )
    }))
}

/// Seconds by which the clock of a front end may be ahead of the database's.
const MAX_CLOCK_DIFFERENCE_S: f64 = 300.0;

async fn differences(connection: &mut PgConnection) -> Result<Vec<String>, Error> {
    let moved: Result<Vec<String>, sqlx::Error> = sqlx::query_scalar(
        "select format('Better Auth''s %ss are now in %s: run ''up''', kind, tab)
        from (select * from migration_tools.find_auth_tables() except select * from migration_tools.auth_tables) as moved",
    )
    .fetch_all(&mut *connection)
    .await;
    match moved {
        Ok(moved) if moved.is_empty() => {}
        Ok(moved) => return Ok(moved),
        Err(error) if error.as_database_error().is_some() => return Ok(vec![message(&error)]),
        Err(error) => return Err(error.into()),
    }
    let missing: Vec<String> = sqlx::query_scalar(
        "select format('the table %s is missing', name)
        from (values ('tasks', to_regclass('public.tasks')), ('idempotency_keys', to_regclass('public.idempotency_keys')),
            ('removed_tasks', to_regclass('public.removed_tasks'))) as own (name, tab)
        where tab is null
        union all
        select case when exists (select from migration_tools.auth_tables where kind = 'none')
            then 'Better Auth has no tables yet: run its own migration, and then ''up'''
            else format('the table %s is missing', wanted.kind) end
        from unnest('{user,session,account,verification}'::text[]) as wanted (kind)
        where not exists (
            select from migration_tools.auth_tables known join pg_class on pg_class.oid = known.tab where known.kind = wanted.kind)
        group by 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    if !missing.is_empty() {
        return Ok(missing);
    }
    let mut differences: Vec<String> =
        sqlx::query_scalar(include_str!("check.sql")).fetch_all(&mut *connection).await?;
    differences.extend(ways_in(connection, Who::Api).await?);
    // PostgreSQL resolves a function's columns only when it runs, so they may be gone.
    for (signature, call) in [("caller(text)", "caller(''::text)"), ("caller(text[])", "caller(array['', '0'])")] {
        let call = AssertSqlSafe(format!("select from public.{call}"));
        if differences.is_empty()
            && let Err(error) = sqlx::query(call).execute(&mut *connection).await
        {
            differences.push(format!("the function {signature} fails, and 'up' recreates it: {}", message(&error)));
        }
    }
    Ok(differences)
}

/// Begins another history for `GET /api/tasks/changes`, in which every cursor of before is 410. Needed after the cluster was
/// set back to an earlier moment: it assigns the same transaction ids again.
///
/// # Errors
/// [`Error::Pending`] if a migration is pending, and any error of the connection.
pub async fn new_epoch(connection: &mut PgConnection) -> Result<(), Error> {
    with_own_names(connection, async |connection| {
        if let Some(pending) = states(connection).await?.iter().find(|it| it.state == State::Pending) {
            return Err(Error::Pending(pending.version));
        }
        sqlx::raw_sql("select migration_tools.new_epoch()").execute(connection).await?;
        Ok(())
    })
    .await
}

/// Lets the API's role log in with this password.
///
/// The password is sent in plain text, because Neon does not accept a hashed one: a server that logs statements logs
/// it. Errors never contain it.
pub async fn set_api_password(connection: &mut PgConnection, password: &str) -> Result<(), Error> {
    let statement: String =
        sqlx::query_scalar("select pg_catalog.format('alter role %I login password %L', $1::text, $2::text)")
            .bind(API_ROLE)
            .bind(password)
            .fetch_one(&mut *connection)
            .await?;
    // Roles belong to all databases of a server, and PostgreSQL lets no second run wait for the first.
    let is_concurrent = |error: &sqlx::Error| message(error) == "tuple concurrently updated";
    let mut tries = 0;
    loop {
        match sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *connection).await {
            Err(error) if is_concurrent(&error) && tries < PASSWORD_RETRIES => tries += 1,
            result => return Ok(result.map(drop)?),
        }
    }
}

/// How often [`set_api_password`] tries again after a run on another database of the server that came first.
const PASSWORD_RETRIES: u32 = 50;
