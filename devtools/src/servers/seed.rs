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

/// Column names of Better Auth's tables in this database: those of the schema specification, or Better Auth's defaults.
#[derive(sqlx::FromRow)]
struct Columns {
    email_verified: String,
    user_id: String,
    expires_at: String,
    updated_at: String,
    user_agent: String,
    /// Type of the user id.
    id_type: String,
}

impl Columns {
    async fn find(connection: &mut PgConnection) -> Result<Self> {
        let columns = sqlx::query_as(
            "select
                quote_ident(migration_tools.required_column('public.\"user\"', '{email_verified,emailVerified}')) as email_verified,
                quote_ident(migration_tools.required_column('public.session', '{user_id,userId}')) as user_id,
                quote_ident(migration_tools.required_column('public.session', '{expires_at,expiresAt}')) as expires_at,
                quote_ident(migration_tools.required_column('public.session', '{updated_at,updatedAt}')) as updated_at,
                quote_ident(migration_tools.required_column('public.session', '{user_agent,userAgent}')) as user_agent,
                (select format_type(atttypid, null) from pg_attribute
                    where attrelid = 'public.\"user\"'::regclass and attname = 'id') as id_type",
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
    let Columns { email_verified, user_id, expires_at, updated_at, user_agent, id_type } = columns;
    // A column without a time zone gets the time in the session's time zone.
    sqlx::raw_sql("set timezone = 'UTC'").execute(&mut *connection).await?;
    let user = format!(
        "insert into public.\"user\" (id, email, name, {email_verified})
        values (gen_random_uuid()::text::{id_type}, $1, $2, true)
        on conflict (email) do update set email = excluded.email
        returning id::text, xmax = 0"
    );
    let (id, is_new): (String, bool) =
        sqlx::query_as(AssertSqlSafe(user)).bind(email).bind(name).fetch_one(&mut *connection).await?;

    // One seeded session per user, in addition to any that Better Auth created.
    let session = format!(
        "with found as (
            update public.session set {expires_at} = now() + interval '7 days'
            where {user_id} = $1::{id_type} and {user_agent} = 'cargo xtask dev'
            returning token),
        made as (
            insert into public.session (id, {user_id}, token, {expires_at}, {updated_at}, {user_agent})
            select gen_random_uuid()::text::{id_type}, $1::{id_type}, replace(gen_random_uuid()::text, '-', ''),
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
