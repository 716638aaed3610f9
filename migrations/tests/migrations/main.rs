//! The migrations, on a real PostgreSQL, which `cargo xtask test migrations` starts.
mod access;
mod auth_tables;
mod jwt;
mod row_security;

use migrations::{AuthOptions, Error, State};
use shared::DatabaseUrl;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use std::sync::LazyLock;
use testing::{Database, SERVICES};

/// The numbers of the migrations in the folder, in order.
static VERSIONS: LazyLock<Vec<i64>> = LazyLock::new(|| {
    let files = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the folder of the migrations");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name in UTF-8"));
    let ups = names.filter(|name| name.ends_with(".up.sql"));
    let mut versions: Vec<_> = ups.map(|name| name[..4].parse().expect("a number")).collect();
    versions.sort();
    versions
});

/// The last migration's number.
fn last() -> i64 {
    *VERSIONS.last().expect("a migration")
}

/// The numbers of the migrations after `version`, the last one first.
fn after(version: i64) -> Vec<i64> {
    VERSIONS.iter().rev().copied().filter(|it| *it > version).collect()
}

/// The tables of the schema specification.
const SPECIFICATION_TABLES: &str = include_str!("../document.sql");

/// Rows for these tables, with nulls where the columns allow them.
const SPECIFICATION_ROWS: &str = r#"
    insert into "user" (id, email) values ('ada', 'ada@example.com');
    insert into session (id, user_id, expires_at) values ('s1', 'ada', now() + interval '1 day');
    insert into account (id, user_id, provider, provider_account_id) values ('a1', 'ada', 'github', '1');
    insert into tasks (user_id, title, completed, created_at) values
        ('ada', 'nothing said', null, null), ('ada', 'done', true, '2025-01-01');
"#;

/// Better Auth 1.7's default schema, as its `compileMigrations` generates it, with one user who is signed in.
const BETTER_AUTH_SCHEMA: &str = r#"
    create table "user" ("id" text not null primary key, "name" text not null, "email" text not null unique,
        "emailVerified" boolean not null, "image" text, "createdAt" timestamptz default CURRENT_TIMESTAMP not null,
        "updatedAt" timestamptz default CURRENT_TIMESTAMP not null);
    create table "session" ("id" text not null primary key, "expiresAt" timestamptz not null, "token" text not null unique,
        "createdAt" timestamptz default CURRENT_TIMESTAMP not null, "updatedAt" timestamptz not null, "ipAddress" text,
        "userAgent" text, "userId" text not null references "user" ("id") on delete cascade);
    create table "account" ("id" text not null primary key, "accountId" text not null, "providerId" text not null,
        "userId" text not null references "user" ("id") on delete cascade, "accessToken" text, "refreshToken" text,
        "idToken" text, "accessTokenExpiresAt" timestamptz, "refreshTokenExpiresAt" timestamptz, "scope" text,
        "password" text, "createdAt" timestamptz default CURRENT_TIMESTAMP not null, "updatedAt" timestamptz not null);
    create table "verification" ("id" text not null primary key, "identifier" text not null, "value" text not null,
        "expiresAt" timestamptz not null, "createdAt" timestamptz default CURRENT_TIMESTAMP not null,
        "updatedAt" timestamptz default CURRENT_TIMESTAMP not null);
    create index "session_userId_idx" on "session" ("userId");
    create index "account_userId_idx" on "account" ("userId");
    create index "verification_identifier_idx" on "verification" ("identifier");
    insert into "user" values ('ada-with-an-id-of-more-than-36-characters', 'Ada', 'ada@example.com', true);
    insert into "session" ("id", "expiresAt", "token", "updatedAt", "userId")
        values ('s1', now() + interval '1 hour', 'live', now(), 'ada-with-an-id-of-more-than-36-characters'),
            ('s2', now() - interval '1 hour', 'expired', now(), 'ada-with-an-id-of-more-than-36-characters');
"#;

/// The owner's URL of an empty database.
async fn empty_database() -> DatabaseUrl {
    DatabaseUrl::parse(&Database::create_empty().await.owner_url()).unwrap()
}

async fn connected() -> PgConnection {
    migrations::connect(&empty_database().await).await.unwrap()
}

async fn superuser(database: &Database) -> PgConnection {
    let port = SERVICES.postgres_port;
    let url = format!(
        "postgresql://postgres:{}@127.0.0.1:{port}/{}?sslmode=disable",
        SERVICES.superuser_password, database.name
    );
    migrations::connect(&DatabaseUrl::parse(&url).unwrap()).await.unwrap()
}

async fn execute(connection: &mut PgConnection, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await.unwrap();
}

/// Returns the rows of a query. A row is its columns as text, separated by spaces.
async fn rows(connection: &mut PgConnection, query: &str) -> Vec<String> {
    let columns = "select string_agg(value, ' ' order by place) from json_each_text(row_to_json(r)) with ordinality as c (name, value, place)";
    let rows = sqlx::raw_sql(AssertSqlSafe(format!("select ({columns}) as line from ({query}) r")));
    rows.fetch_all(connection).await.unwrap().iter().map(|row| row.get::<String, _>("line")).collect()
}

async fn up(connection: &mut PgConnection) {
    migrations::up(connection, AuthOptions::default()).await.unwrap();
}

async fn down(connection: &mut PgConnection) {
    migrations::down(connection, Some(0), |_| {}).await.unwrap();
}

/// Lists all relations, functions and schemas except the system's and sqlx's.
async fn objects(connection: &mut PgConnection) -> Vec<String> {
    let query = "select relname::text as name from pg_class where relnamespace = 'public'::regnamespace
        union all select proname from pg_proc where pronamespace = 'public'::regnamespace
        union all select nspname from pg_namespace where nspname !~ '^pg_' and nspname not in ('public', 'information_schema')
        order by 1";
    rows(connection, query).await.into_iter().filter(|name| !name.starts_with("_sqlx_migrations")).collect()
}

#[tokio::test]
async fn an_empty_database_gets_the_tables_of_the_specification() {
    let mut connection = connected().await;
    up(&mut connection).await;
    let columns = rows(
        &mut connection,
        "select table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
        from information_schema.columns where table_schema = 'public' and table_name <> '_sqlx_migrations'
        order by table_name, ordinal_position",
    );
    insta::assert_snapshot!(columns.await.join("\n"), @r#"
    account id character varying 36 NO
    account user_id character varying 36 YES
    account provider character varying 50 NO
    account provider_account_id character varying 255 NO
    account access_token text YES
    account refresh_token text YES
    account expires_at timestamp without time zone YES
    account id_token text YES
    account refresh_token_expires_at timestamp without time zone YES
    account scope text YES
    account password text YES
    account created_at timestamp without time zone NO now()
    account updated_at timestamp without time zone NO now()
    idempotency_keys user_id character varying 36 NO
    idempotency_keys key character varying 255 NO
    idempotency_keys request_hash bytea NO
    idempotency_keys task_id integer NO
    idempotency_keys created_at timestamp without time zone NO
    idempotency_keys made_by xid8 NO pg_current_xact_id()
    idempotency_keys results ARRAY YES
    removed_tasks user_id text NO
    removed_tasks changed xid8 NO pg_current_xact_id()
    removed_tasks task_id integer NO
    removed_tasks removed_at timestamp without time zone NO (clock_timestamp() AT TIME ZONE 'utc'::text)
    session id character varying 36 NO
    session user_id character varying 36 YES
    session expires_at timestamp without time zone NO
    session created_at timestamp without time zone YES now()
    session ip_address character varying 45 YES
    session user_agent text YES
    session token text NO
    session updated_at timestamp without time zone NO now()
    tasks id integer NO nextval('tasks_id_seq'::regclass)
    tasks user_id character varying 36 NO
    tasks title character varying 200 NO
    tasks description text YES
    tasks completed boolean NO false
    tasks created_at timestamp without time zone NO now()
    tasks updated_at timestamp without time zone NO now()
    tasks changed xid8 NO pg_current_xact_id()
    user id character varying 36 NO
    user email character varying 255 NO
    user name character varying 255 YES
    user email_verified boolean YES false
    user image text YES
    user created_at timestamp without time zone YES now()
    user updated_at timestamp without time zone YES now()
    verification id character varying 36 NO
    verification identifier text NO
    verification value text NO
    verification expires_at timestamp without time zone NO
    verification created_at timestamp without time zone NO now()
    verification updated_at timestamp without time zone NO now()
    "#);
    let constraints = rows(
        &mut connection,
        "select conrelid::regclass::text as tab, pg_get_constraintdef(oid) as definition from pg_constraint
        where connamespace = 'public'::regnamespace and conrelid <> '_sqlx_migrations'::regclass and contype in ('c', 'f', 'p', 'u')
        order by 1, 2",
    );
    insta::assert_snapshot!(constraints.await.join("\n"), @r#"
    "user" PRIMARY KEY (id)
    "user" UNIQUE (email)
    account FOREIGN KEY (user_id) REFERENCES "user"(id) ON DELETE CASCADE
    account PRIMARY KEY (id)
    idempotency_keys FOREIGN KEY (user_id) REFERENCES "user"(id) ON DELETE CASCADE
    idempotency_keys PRIMARY KEY (user_id, key)
    removed_tasks PRIMARY KEY (user_id, changed, task_id)
    session FOREIGN KEY (user_id) REFERENCES "user"(id) ON DELETE CASCADE
    session PRIMARY KEY (id)
    session UNIQUE (token)
    tasks CHECK (((char_length((title)::text) >= 1) AND (char_length((title)::text) <= 200)))
    tasks FOREIGN KEY (user_id) REFERENCES "user"(id) ON DELETE CASCADE
    tasks PRIMARY KEY (id)
    verification PRIMARY KEY (id)
    "#);
    let indexes = rows(
        &mut connection,
        "select indexdef from pg_indexes where schemaname = 'public' and indexname !~ '(_pkey|_key)$' order by 1",
    );
    insta::assert_snapshot!(indexes.await.join("\n"), @r#"
    CREATE INDEX account_user_id_idx ON public.account USING btree (user_id)
    CREATE INDEX idx_idempotency_keys_created_at ON public.idempotency_keys USING btree (created_at)
    CREATE INDEX idx_removed_tasks_removed_at ON public.removed_tasks USING btree (removed_at)
    CREATE INDEX idx_session_expires ON public.session USING btree (expires_at)
    CREATE INDEX idx_session_user_id ON public.session USING btree (user_id)
    CREATE INDEX idx_tasks_completed ON public.tasks USING btree (completed)
    CREATE INDEX idx_tasks_created_at ON public.tasks USING btree (created_at DESC)
    CREATE INDEX idx_tasks_user_changed ON public.tasks USING btree (user_id, changed, id)
    CREATE INDEX idx_tasks_user_completed ON public.tasks USING btree (user_id, completed)
    CREATE INDEX idx_tasks_user_id ON public.tasks USING btree (user_id)
    CREATE INDEX idx_tasks_user_list ON public.tasks USING btree (user_id, created_at DESC, id DESC)
    CREATE INDEX idx_tasks_user_status ON public.tasks USING btree (user_id, completed, created_at DESC, id DESC)
    CREATE INDEX idx_tasks_user_updated ON public.tasks USING btree (user_id, updated_at DESC, id DESC)
    CREATE INDEX verification_identifier_idx ON public.verification USING btree (identifier)
    CREATE UNIQUE INDEX session_token_hash ON public.session USING btree (token_hash(token))
    "#);
}

#[tokio::test]
async fn down_leaves_nothing_of_an_empty_database_and_up_works_again() {
    let mut connection = connected().await;
    let before = objects(&mut connection).await;
    up(&mut connection).await;
    let after = objects(&mut connection).await;
    down(&mut connection).await;
    assert_eq!(objects(&mut connection).await, before);
    up(&mut connection).await;
    assert_eq!(objects(&mut connection).await, after);
}

#[tokio::test]
async fn down_takes_every_right_from_the_apis_role() {
    let mut connection = connected().await;
    let rights = "select nspname as thing from pg_namespace where nspacl::text like '%tasks_api%'
        union all select relname from pg_class where relacl::text like '%tasks_api%'
        union all select proname from pg_proc where proacl::text like '%tasks_api%'
        union all select setting from pg_db_role_setting, unnest(setconfig) as setting
            where setrole = to_regrole('tasks_api') and setdatabase = (select oid from pg_database where datname = current_database())
        order by 1";
    up(&mut connection).await;
    assert_eq!(
        rows(&mut connection, rights).await,
        [
            "caller",
            "caller",
            "caller",
            "client_connection_check_interval=500ms",
            "idempotency_keys",
            "idle_in_transaction_session_timeout=9s",
            "jwt_keys",
            "public",
            "purge_expired",
            "purge_removed",
            "removed_tasks",
            "session_lookup",
            "statement_timeout=9s",
            "sync_history",
            "tasks",
            "tasks_id_seq"
        ]
    );
    migrations::down(&mut connection, Some(5), |_| {}).await.unwrap();
    assert!(rows(&mut connection, rights).await.is_empty());
}

#[tokio::test]
async fn rights_of_public_are_withheld_from_the_apis_role_only_and_restored() {
    let database = Database::create_empty().await;
    let mut connection = migrations::connect(&DatabaseUrl::parse(&database.owner_url()).unwrap()).await.unwrap();
    // Another role without rights of its own, and a database created before PostgreSQL 15. The role is not dropped:
    // databases of other tests, which run at the same time, refer to it too.
    let other = "somebody_else";
    let create = format!("do $$ begin create role {other} login; exception when duplicate_object then null; end $$");
    database.sql(&create, &[]).await;
    execute(&mut connection, "grant create on schema public to public").await;
    let may = |role: &str| {
        format!(
            "select has_database_privilege('{role}', current_database(), 'temporary') as temporary,
                has_database_privilege('{role}', current_database(), 'connect') as connect,
                has_schema_privilege('{role}', 'public', 'create') as create, has_schema_privilege('{role}', 'public', 'usage') as usage"
        )
    };
    for _ in 0..2 {
        up(&mut connection).await;
        assert_eq!(rows(&mut connection, &may("tasks_api")).await, ["false true false true"]);
        assert_eq!(rows(&mut connection, &may("public")).await, ["false true false true"]);
        for kept in [other, "tasks_owner"] {
            assert_eq!(rows(&mut connection, &may(kept)).await, ["true true true true"], "{kept}");
        }
        assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
        migrations::down(&mut connection, Some(10), |_| {}).await.unwrap();
        assert_eq!(rows(&mut connection, &may("public")).await, ["true true true true"]);
        // No right is granted to the other role by name any more.
        let named = format!(
            "select datacl::text as thing from pg_database where datname = current_database() and datacl::text like '%{other}%'
            union all select nspacl::text from pg_namespace where nspacl::text like '%{other}%'"
        );
        assert_eq!(rows(&mut connection, &named).await, [""; 0]);
    }
}

#[tokio::test]
async fn down_goes_one_step_or_to_a_version() {
    let mut connection = connected().await;
    up(&mut connection).await;
    let mut reverted = Vec::new();
    migrations::down(&mut connection, None, |it| reverted.push(it.version)).await.unwrap();
    migrations::down(&mut connection, Some(2), |it| reverted.push(it.version)).await.unwrap();
    assert_eq!(reverted, after(2));
    migrations::down(&mut connection, Some(0), |it| reverted.push(it.version)).await.unwrap();
    assert_eq!(reverted, after(0));
    let error = migrations::down(&mut connection, None, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::NothingApplied), "{error}");
}

#[tokio::test]
async fn the_tables_of_the_specification_keep_every_row_up_and_down() {
    let mut connection = connected().await;
    execute(&mut connection, SPECIFICATION_TABLES).await;
    execute(&mut connection, SPECIFICATION_ROWS).await;
    let tasks = "select id, user_id, title from tasks order by id";
    let others = "select id, user_id, 'session' from session union all select id, user_id, provider from account union all select id, email, '' from \"user\"";
    let (tasks_before, others_before) = (rows(&mut connection, tasks).await, rows(&mut connection, others).await);
    for _ in 0..2 {
        up(&mut connection).await;
        assert_eq!(rows(&mut connection, tasks).await, tasks_before);
        assert_eq!(rows(&mut connection, others).await, others_before);
        let filled =
            "select completed, created_at is not null as c, updated_at is not null as u from tasks order by id";
        assert_eq!(rows(&mut connection, filled).await, ["false true true", "true true true"]);
        let sessions =
            "select length(token) > 40 as is_long, expires_at < now() at time zone 'utc' as is_expired from session";
        assert_eq!(
            rows(&mut connection, sessions).await,
            ["true true"],
            "a session without a token gets a random one and has expired"
        );
        down(&mut connection).await;
        assert_eq!(rows(&mut connection, tasks).await, tasks_before);
        assert_eq!(rows(&mut connection, others).await, others_before);
        let indexes = "select indexname from pg_indexes where tablename = 'tasks' order by 1";
        assert_eq!(rows(&mut connection, indexes).await, ["idx_tasks_completed", "idx_tasks_user_id", "tasks_pkey"]);
    }
    up(&mut connection).await;
    execute(&mut connection, "delete from \"user\"").await;
    assert!(rows(&mut connection, others).await.is_empty(), "sessions and accounts are deleted with their user");
    assert!(rows(&mut connection, tasks).await.is_empty(), "the tasks are deleted with their owner");
}

#[tokio::test]
async fn better_auths_own_tables_are_adopted_as_they_are() {
    for (kind, schema) in [
        ("its default", BETTER_AUTH_SCHEMA.to_owned()),
        (
            "ids of type uuid",
            BETTER_AUTH_SCHEMA
                .replace("\"id\" text", "\"id\" uuid")
                .replace("\"userId\" text", "\"userId\" uuid")
                .replace("'ada-with-an-id-of-more-than-36-characters'", "'0b8f1f0e-0000-4000-8000-000000000001'")
                .replace("('s1'", "(gen_random_uuid()")
                .replace("('s2'", "(gen_random_uuid()"),
        ),
        (
            "ids of a type that is not in pg_catalog",
            format!(
                "create domain person_id as text; {}",
                BETTER_AUTH_SCHEMA
                    .replace("\"id\" text", "\"id\" person_id")
                    .replace("\"userId\" text", "\"userId\" person_id")
            ),
        ),
    ] {
        let mut connection = connected().await;
        execute(&mut connection, &schema).await;
        let before = objects(&mut connection).await;
        let columns = "select table_name, column_name, data_type from information_schema.columns
            where table_name in ('user', 'session', 'account', 'verification') and table_schema = 'public' order by 1, 2";
        let columns_before = rows(&mut connection, columns).await;
        for timezone in ["UTC", "Pacific/Kiritimati"] {
            up(&mut connection).await;
            assert_eq!(rows(&mut connection, columns).await, columns_before, "{kind}");
            execute(&mut connection, &format!("set timezone = '{timezone}'")).await;
            let caller = "select user_id = (select id from \"user\") as is_ada,
                abs(extract(epoch from expires_at - (now() at time zone 'utc')) - 3600) < 60 as is_utc from caller('live')";
            assert_eq!(rows(&mut connection, caller).await, ["true true"], "{kind}");
            assert!(rows(&mut connection, "select user_id from caller('expired')").await.is_empty(), "{kind}");
            execute(&mut connection, "insert into tasks (user_id, title) select user_id, 'x' from caller('live')")
                .await;
            execute(&mut connection, "delete from tasks").await;
            let indexes =
                "select indexdef from pg_indexes where tablename = 'session' and indexdef like '%(\"userId\")'";
            assert_eq!(rows(&mut connection, indexes).await.len(), 1, "{kind}: no second index on the same column");
            down(&mut connection).await;
            assert_eq!(objects(&mut connection).await, before, "{kind}");
        }
        assert_eq!(rows(&mut connection, "select count(*) from session").await, ["2"], "{kind}");
    }
}

#[tokio::test]
async fn every_up_adapts_the_session_check_to_the_columns() {
    let mut connection = connected().await;
    up(&mut connection).await;
    execute(
        &mut connection,
        "insert into \"user\" (id, email) values ('ada', 'ada@example.com');
        insert into session (id, user_id, token, expires_at) values ('s1', 'ada', 'live', now() at time zone 'utc' + interval '1 hour');
        alter table session rename user_id to \"userId\";
        alter table session rename expires_at to \"expiresAt\";
        alter table session alter \"expiresAt\" type timestamptz using \"expiresAt\" at time zone 'utc'",
    )
    .await;
    up(&mut connection).await;
    assert_eq!(rows(&mut connection, "select user_id from caller('live')").await, ["ada"]);
    let may = "select has_function_privilege('tasks_api', 'caller(text)', 'execute') as api, has_function_privilege('public', 'caller(text)', 'execute') as everybody";
    assert_eq!(rows(&mut connection, may).await, ["true false"]);
}

#[tokio::test]
async fn functions_of_others_in_public_are_not_run_by_the_owner() {
    let mut connection = connected().await;
    up(&mut connection).await;
    // For the migrations' calls, each is a better match than PostgreSQL's own function.
    for signature in ["pg_advisory_xact_lock(integer)", "format(text, text)", "format(text, text, text)"] {
        let make = format!(
            "create function public.{signature} returns text language plpgsql as $$ begin raise 'it was run'; end $$"
        );
        execute(&mut connection, &make).await;
    }
    up(&mut connection).await;
    migrations::set_api_password(&mut connection, &SERVICES.api_password).await.unwrap();
}

#[tokio::test]
async fn an_unsupported_schema_is_reported_with_its_table_and_columns() {
    for (statements, says) in [
        ("create table \"user\" (uid text primary key)", vec!["user", "id"]),
        (
            "create table \"user\" (id text primary key); create table session (id text primary key, owner text, expires_at timestamp)",
            vec!["session", "user_id or userId"],
        ),
        (
            "create table tasks (id bigserial primary key, user_id varchar(36), title text, description text, completed boolean, created_at timestamptz)",
            vec!["tasks", "id (integer)", "created_at (timestamp", "updated_at"],
        ),
    ] {
        let mut connection = connected().await;
        execute(&mut connection, statements).await;
        let before = objects(&mut connection).await;
        let error = migrations::up(&mut connection, AuthOptions::default()).await.unwrap_err().to_string();
        for part in says {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(objects(&mut connection).await, before);
    }
}

#[tokio::test]
async fn down_keeps_tables_that_hold_rows_and_up_takes_them_over() {
    let mut connection = connected().await;
    up(&mut connection).await;
    execute(
        &mut connection,
        "insert into \"user\" (id, email) values ('ada', 'ada@example.com');
        insert into session (id, user_id, token, expires_at) values ('s1', 'ada', 'secret', '2100-01-01');
        insert into tasks (user_id, title) values ('ada', 'kept')",
    )
    .await;
    down(&mut connection).await;
    assert_eq!(rows(&mut connection, "select title from tasks").await, ["kept"]);
    assert_eq!(rows(&mut connection, "select token from session").await, ["secret"]);
    assert!(!objects(&mut connection).await.contains(&"account".to_owned()), "empty tables are dropped");
    up(&mut connection).await;
    assert_eq!(rows(&mut connection, "select user_id from caller('secret')").await, ["ada"]);
    execute(&mut connection, "delete from \"user\"").await;
    down(&mut connection).await;
    assert_eq!(objects(&mut connection).await, [""; 0]);
}

/// Such as one with the revert of another database of the server: both drop the role that they share.
#[tokio::test]
async fn a_revert_that_a_deadlock_has_ended_is_tried_again() {
    let database = Database::create_empty().await;
    let mut connection = migrations::connect(&DatabaseUrl::parse(&database.owner_url()).unwrap()).await.unwrap();
    up(&mut connection).await;
    let deadlock = "create sequence public.tries;
        create function public.meet_a_deadlock() returns event_trigger language plpgsql as $$
        begin
          if nextval('public.tries') <= 2 then
            raise exception using errcode = 'deadlock_detected';
          end if;
        end $$;
        create event trigger meet_a_deadlock on sql_drop execute function public.meet_a_deadlock();
        grant usage on sequence public.tries to public";
    execute(&mut superuser(&database).await, deadlock).await;
    migrations::down(&mut connection, None, |_| {}).await.unwrap();
    execute(&mut superuser(&database).await, "alter sequence public.tries increment -1 minvalue -1000 restart -1")
        .await;
    let error = migrations::down(&mut connection, None, |_| {}).await.unwrap_err();
    assert!(error.to_string().ends_with("was rolled back: deadlock_detected"), "{error}");
}

#[tokio::test]
async fn two_runs_at_once_apply_each_migration_once() {
    let url = empty_database().await;
    let mut first = migrations::connect(&url).await.unwrap();
    let mut second = migrations::connect(&url).await.unwrap();
    let (one, other) = tokio::join!(
        migrations::up(&mut first, AuthOptions::default()),
        migrations::up(&mut second, AuthOptions::default())
    );
    let mut counts = [one.unwrap().len(), other.unwrap().len()];
    counts.sort();
    assert_eq!(counts, [0, VERSIONS.len()]);
    let applied = rows(&mut first, "select version, count(*) from _sqlx_migrations group by 1 order by 1").await;
    assert_eq!(applied, VERSIONS.iter().map(|version| format!("{version} 1")).collect::<Vec<_>>());
}

#[tokio::test]
async fn status_reports_applied_pending_changed_and_unknown() {
    let mut connection = connected().await;
    let states =
        |migrations: Vec<migrations::Migration>| migrations.iter().map(|it| (it.version, it.state)).collect::<Vec<_>>();
    let (applied, pending) = (State::Applied, State::Pending);
    let status = migrations::status(&mut connection).await.unwrap();
    assert_eq!(states(status), VERSIONS.iter().map(|version| (*version, pending)).collect::<Vec<_>>());
    assert!(objects(&mut connection).await.is_empty(), "status changes nothing");

    up(&mut connection).await;
    migrations::down(&mut connection, Some(last() - 1), |_| {}).await.unwrap();
    let mut expected: Vec<_> =
        VERSIONS.iter().map(|version| (*version, if *version == last() { pending } else { applied })).collect();
    let status = migrations::status(&mut connection).await.unwrap();
    assert_eq!(states(status), expected);

    execute(&mut connection, "update _sqlx_migrations set checksum = 'x' where version = 2").await;
    execute(&mut connection, "insert into _sqlx_migrations values (9999, 'of another version', now(), true, 'x', 0)")
        .await;
    let status = migrations::status(&mut connection).await.unwrap();
    expected[1].1 = State::Changed;
    expected.push((9999, State::Unknown));
    assert_eq!(states(status), expected);
    let error = migrations::up(&mut connection, AuthOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("9999"), "{error}");
    execute(&mut connection, "delete from _sqlx_migrations where version = 9999").await;
    let error = migrations::up(&mut connection, AuthOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("0002") && error.contains("changed"), "{error}");
}

#[tokio::test]
async fn check_finds_nothing_after_up_on_any_kind_of_database() {
    for schema in ["", &format!("{SPECIFICATION_TABLES} {SPECIFICATION_ROWS}"), BETTER_AUTH_SCHEMA] {
        let mut connection = connected().await;
        execute(&mut connection, schema).await;
        let error = migrations::check(&mut connection).await.unwrap_err();
        assert!(matches!(error, Error::Pending(1)), "{error}");
        up(&mut connection).await;
        assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn the_restore_drill_of_the_documentation_restores_rows_and_rights() {
    let page = include_str!("../../../docs/data.md");
    let (_, statements) = page.split_once("```sql\nrevoke").expect("the statements after a restore");
    let statements = format!("revoke{}", statements.split_once("```").expect("their end").0);
    let [source, target] = [Database::create_empty().await, Database::create_empty().await];
    let [from, to] = [source.owner_url(), target.owner_url()];
    let connect = async |url: &str| migrations::connect(&DatabaseUrl::parse(url).unwrap()).await.unwrap();
    let mut original = connect(&from).await;
    execute(&mut original, &format!("{SPECIFICATION_TABLES} {SPECIFICATION_ROWS}")).await;
    up(&mut original).await;
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).arg("--no-owner").output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let file = format!("{}/{}.dump", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    run("pg_dump", &["--format", "custom", "--file", &file, &from]);
    run("pg_restore", &["--exit-on-error", "--dbname", &to, &file]);
    std::fs::remove_file(&file).unwrap();
    let mut restored = connect(&to).await;
    let problems = migrations::check(&mut restored).await.unwrap();
    assert!(problems.iter().all(|problem| problem.contains("tasks_api")), "{problems:?}");
    let [name] = &rows(&mut restored, "select current_database()").await[..] else { panic!("one database") };
    execute(&mut restored, &statements.replace("NAME", name)).await;
    assert_eq!(migrations::check(&mut restored).await.unwrap(), [""; 0]);
    for query in [
        "select * from tasks order by id",
        "select * from session",
        "select user_id from caller(token_hash((select token from session)))",
        "select oid::regprocedure::text, has_function_privilege('tasks_api', oid, 'execute') from pg_proc
         where pronamespace = 'public'::regnamespace order by 1",
        "select relname, has_table_privilege('tasks_api', oid, 'select,insert,update,delete') from pg_class
         where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1",
    ] {
        assert_eq!(rows(&mut restored, query).await, rows(&mut original, query).await, "{query}");
    }
}

#[tokio::test]
async fn check_names_what_was_changed() {
    for (change, says) in [
        ("alter table tasks drop description", "the column tasks.description is missing"),
        ("alter table tasks alter description type varchar(5), alter title type varchar(500)", ""),
        ("alter table tasks alter created_at type timestamptz", "tasks.created_at is of type timestamp with time zone"),
        ("alter table tasks alter completed drop not null", "the column tasks.completed may be null"),
        ("drop index idx_tasks_user_list", "an index on tasks (user_id, created_at, id) is missing"),
        ("drop index idx_tasks_user_status", "an index on tasks (user_id, completed, created_at, id) is missing"),
        ("drop index idx_tasks_user_updated", "an index on tasks (user_id, updated_at, id) is missing"),
        ("revoke insert on idempotency_keys from tasks_api", "lacks the right: idempotency_keys insert"),
        ("drop table idempotency_keys", "the table idempotency_keys is missing"),
        ("drop index idx_tasks_user_changed", "an index on tasks (user_id, changed, id) is missing"),
        ("drop table removed_tasks", "the table removed_tasks is missing"),
        ("grant insert on removed_tasks to tasks_api", "should not have the right: removed_tasks insert"),
        ("drop policy tasks_api on removed_tasks", "row-level security hides removed_tasks from the role tasks_api"),
        ("drop function sync_history()", "the function sync_history() is missing"),
        ("drop trigger note_delete on tasks", "the trigger note_delete on tasks is missing or switched off"),
        ("alter table tasks disable trigger user", "the trigger note_update on tasks is missing or switched off"),
        ("drop index idx_session_expires", "an index on session (expires_at) is missing"),
        ("alter table tasks drop constraint tasks_title_length", "tasks.title has no CHECK"),
        ("alter table tasks drop constraint fk_tasks_user", "the rows of tasks are not deleted with their user"),
        ("alter table session drop token", "the column session.token is missing"),
        ("alter table session rename expires_at to \"expiresAt\"", "the function caller(text) fails"),
        ("drop function caller(text)", "the function caller(text) is missing"),
        ("drop function purge_expired(text, integer)", "the function purge_expired(text, integer) is missing"),
        ("drop function caller(text[])", "the function caller(text[]) is missing"),
        ("alter table session drop created_at", "the column session.created_at or createdAt is missing"),
        ("alter table session rename created_at to \"createdAt\"", "the function caller(text[]) fails"),
        ("alter table \"user\" add banned boolean", "does not read the column \"user\".banned: 'up' recreates it"),
        ("grant execute on function jwt_keys() to public", "may be called by everybody"),
        ("drop function caller(bytea)", "the function caller(bytea) is missing"),
        ("drop index session_token_hash", "the unique index session_token_hash on session is missing"),
        ("revoke execute on function token_hash(text) from public", "token_hash(text) may not be called by everybody"),
        ("alter table session rename to sessions", "the function caller(text) fails, and 'up' recreates it"),
        ("grant execute on function caller(text) to public", "may be called by everybody"),
        ("alter function caller(text) security invoker", "does not run with its owner's rights"),
        (
            "alter function caller(text) set search_path = pg_catalog, public, pg_temp",
            "the function caller(text) does not have the search_path",
        ),
        (
            "alter function purge_expired(text, integer) reset search_path",
            "the function purge_expired(text, integer) does not have the search_path",
        ),
        ("grant select on session to tasks_api", "should not have the right: session select"),
        ("grant truncate on tasks to tasks_api", "should not have the right: tasks truncate"),
        (
            "do $$ begin execute format('grant temporary on database %I to public', current_database()); end $$",
            "may make temporary tables",
        ),
        ("grant create on schema public to public", "may make objects in the schema public"),
        ("revoke delete on tasks from tasks_api", "lacks the right: tasks delete"),
        ("revoke execute on function caller(text) from tasks_api", "may not call caller(text)"),
        ("revoke usage on sequence tasks_id_seq from tasks_api", "may not use the sequence"),
        ("drop table verification", "the table verification is missing"),
        ("alter table session disable row level security", "row-level security was switched off for session"),
        ("drop policy tasks_api on tasks", "row-level security hides tasks from the role tasks_api"),
        ("alter table session force row level security", "row-level security hides session from tasks_owner"),
        (
            "grant select (email) on \"user\" to tasks_api",
            "the role tasks_api should not have rights on columns of \"user\"",
        ),
        ("grant truncate on tasks to pg_monitor", "the role pg_monitor should not have the rights truncate on tasks"),
        ("grant execute on function caller(text) to pg_monitor", "the role pg_monitor may call caller(text)"),
    ] {
        let mut connection = connected().await;
        up(&mut connection).await;
        execute(&mut connection, change).await;
        let differences = migrations::check(&mut connection).await.unwrap();
        let expected = usize::from(!says.is_empty());
        // Indexes and constraints are dropped with their column, and are reported too.
        assert_eq!(differences.iter().filter(|it| it.contains(says)).count(), expected, "{change}: {differences:?}");
    }
}

#[tokio::test]
async fn the_column_changed_rewrites_no_row_and_existing_rows_share_one_value() {
    let mut connection = connected().await;
    up(&mut connection).await;
    migrations::down(&mut connection, Some(17), |_| {}).await.unwrap();
    execute(
        &mut connection,
        "insert into \"user\" (id, email) values ('ada', 'ada@example.com');
        insert into tasks (user_id, title) select 'ada', n::text from generate_series(1, 1000) n",
    )
    .await;
    let file = "select pg_relation_filenode('tasks')::text";
    let before = rows(&mut connection, file).await;
    up(&mut connection).await;
    assert_eq!(rows(&mut connection, file).await, before);
    assert_eq!(rows(&mut connection, "select count(distinct changed)::text from tasks").await, ["1"]);
    assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn up_adopts_a_column_and_an_index_that_were_made_before_it_without_long_locks() {
    let page = include_str!("../../../docs/sync.md");
    let (_, statements) = page.split_once("```sql\n").expect("the statements before a migration");
    let mut connection = connected().await;
    up(&mut connection).await;
    let after = objects(&mut connection).await;
    migrations::down(&mut connection, Some(17), |_| {}).await.unwrap();
    for statement in statements.split_once("```").expect("their end").0.split_inclusive(';') {
        execute(&mut connection, statement).await;
    }
    up(&mut connection).await;
    assert_eq!(objects(&mut connection).await, after);
    assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn up_makes_a_trigger_again_that_was_dropped_and_then_readers_start_over() {
    let mut connection = connected().await;
    up(&mut connection).await;
    let history = "select history from sync_history()";
    let first = rows(&mut connection, history).await;
    up(&mut connection).await;
    assert_eq!(rows(&mut connection, history).await, first);
    execute(&mut connection, "alter table tasks disable trigger note_delete").await;
    up(&mut connection).await;
    assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
    let second = rows(&mut connection, history).await;
    assert_ne!(second, first);
    migrations::new_epoch(&mut connection).await.unwrap();
    assert_ne!(rows(&mut connection, history).await, second);
}

#[tokio::test]
async fn a_migration_that_fails_says_why_and_leaves_nothing() {
    let mut connection = connected().await;
    execute(&mut connection, SPECIFICATION_TABLES).await;
    execute(&mut connection, SPECIFICATION_ROWS).await;
    execute(&mut connection, "insert into tasks (user_id, title) values ('ada', '')").await;
    let error = migrations::up(&mut connection, AuthOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("migration 0003 failed") && error.contains("title"), "{error}");
    let nulls = "select count(*) from tasks where completed is null";
    assert_eq!(rows(&mut connection, nulls).await, ["2"], "it was rolled back");
    let tables =
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1";
    assert_eq!(
        rows(&mut connection, tables).await,
        ["account", "session", "tasks", "user"],
        "the migrations before it were rolled back too"
    );
    execute(&mut connection, "delete from tasks where title = ''").await;
    drop(connection);
}

#[tokio::test]
async fn a_pooled_endpoint_or_a_hostaddr_is_refused() {
    for (url, expected) in [
        ("postgresql://a:s3cret@ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech/db", "-pooler"),
        ("postgresql://a:s3cret@ep-cool-name-123456.eu-central-1.aws.neon.tech/db?hostaddr=127.0.0.1", "hostaddr"),
    ] {
        let error = migrations::connect(&DatabaseUrl::parse(url).unwrap()).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("s3cret"), "{error}");
    }
}

#[tokio::test]
async fn runs_on_several_databases_of_a_server_set_the_password_at_once() {
    let run = async || {
        let mut connection = connected().await;
        for _ in 0..100 {
            migrations::set_api_password(&mut connection, &SERVICES.api_password).await.unwrap();
        }
    };
    tokio::join!(run(), run(), run());
}
