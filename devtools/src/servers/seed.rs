//! Two users with sessions and tasks, to try the API with.
use anyhow::Result;
use sqlx::{AssertSqlSafe, PgConnection};

/// A seeded user with a session.
pub struct SeededUser {
    pub id: String,
    /// The session's token; secret.
    pub token: String,
}

/// Adds the two users. Users of an earlier run keep their tasks and tokens, and their sessions are extended to a week
/// from now.
pub async fn seed(connection: &mut PgConnection) -> Result<[SeededUser; 2]> {
    let columns = Columns::find(connection).await?;
    let ada =
        seed_user(connection, &columns, "Ada", "ada@example.com", &["Buy milk", "Answer Charles", "Note G"]).await?;
    let grace =
        seed_user(connection, &columns, "Grace", "grace@example.com", &["Find the bug", "Call the Navy"]).await?;
    Ok([ada, grace])
}

/// Better Auth's tables in this database and the names of their columns, ready for SQL.
#[derive(sqlx::FromRow)]
struct Columns {
    users: String,
    email_verified: String,
    user_updated_at: String,
    user_id_type: String,
    sessions: String,
    session_id_type: String,
    user_id: String,
    expires_at: String,
    updated_at: String,
    user_agent: String,
}

impl Columns {
    async fn find(connection: &mut PgConnection) -> Result<Self> {
        let columns = sqlx::query_as(
            "with tables as (
                select max(tab::oid) filter (where kind = 'user')::regclass as users,
                    max(tab::oid) filter (where kind = 'session')::regclass as sessions
                from migration_tools.auth_tables)
            select users::text, sessions::text,
                quote_ident(migration_tools.required_column(users, '{email_verified,emailVerified}')) as email_verified,
                quote_ident(migration_tools.required_column(users, '{updated_at,updatedAt}')) as user_updated_at,
                quote_ident(migration_tools.required_column(sessions, '{user_id,userId}')) as user_id,
                quote_ident(migration_tools.required_column(sessions, '{expires_at,expiresAt}')) as expires_at,
                quote_ident(migration_tools.required_column(sessions, '{updated_at,updatedAt}')) as updated_at,
                quote_ident(migration_tools.required_column(sessions, '{user_agent,userAgent}')) as user_agent,
                (select format_type(atttypid, null) from pg_attribute where attrelid = users and attname = 'id') as user_id_type,
                (select format_type(atttypid, null) from pg_attribute where attrelid = sessions and attname = 'id') as session_id_type
            from tables",
        );
        Ok(columns.fetch_one(connection).await?)
    }
}

async fn seed_user(
    connection: &mut PgConnection,
    columns: &Columns,
    name: &str,
    email: &str,
    tasks: &[&str],
) -> Result<SeededUser> {
    let Columns { users, email_verified, user_updated_at, user_id_type: id_type, .. } = columns;
    // A column without a time zone gets the time in the session's time zone.
    sqlx::raw_sql("set timezone = 'UTC'").execute(&mut *connection).await?;
    let user = format!(
        "insert into {users} (id, email, name, {email_verified}, {user_updated_at})
        values (gen_random_uuid()::text::{id_type}, $1, $2, true, now())
        on conflict (email) do update set email = excluded.email
        returning id::text, xmax = 0"
    );
    let (id, is_new): (String, bool) =
        sqlx::query_as(AssertSqlSafe(user)).bind(email).bind(name).fetch_one(&mut *connection).await?;

    // One seeded session per user, in addition to any that Better Auth created.
    let Columns { sessions, session_id_type, user_id, expires_at, updated_at, user_agent, .. } = columns;
    let session = format!(
        "with found as (
            update {sessions} set {expires_at} = now() + interval '7 days'
            where {user_id} = $1::{id_type} and {user_agent} = 'cargo xtask dev'
            returning token),
        made as (
            insert into {sessions} (id, {user_id}, token, {expires_at}, {updated_at}, {user_agent})
            select gen_random_uuid()::text::{session_id_type}, $1::{id_type}, replace(gen_random_uuid()::text, '-', ''),
                now() + interval '7 days', now(), 'cargo xtask dev'
            where not exists (select from found)
            returning token)
        select token from found union all select token from made limit 1"
    );
    let token: String = sqlx::query_scalar(AssertSqlSafe(session)).bind(&id).fetch_one(&mut *connection).await?;

    if is_new {
        let made = format!(
            "insert into public.tasks (user_id, title, completed, created_at, updated_at)
            select $1::{id_type}, title, place = 1, at, at
            from unnest($2::text[]) with ordinality as given (title, place),
                lateral (select now() - place * interval '1 hour' as at) times"
        );
        sqlx::query(AssertSqlSafe(made)).bind(&id).bind(tasks).execute(connection).await?;
    }
    Ok(SeededUser { id, token })
}
