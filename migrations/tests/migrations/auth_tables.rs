//! Better Auth's tables under every name that users have them.
use crate::{BETTER_AUTH_SCHEMA, connected, down, execute, objects, rows};
use migrations::{AuthOptions, AuthTables};
use shared::DatabaseUrl;
use sqlx::PgConnection;
use testing::Database;

/// Better Auth's default tables in other names: pairs of a name and what takes its place.
fn renamed(names: &[(&str, &str)]) -> String {
    names.iter().fold(BETTER_AUTH_SCHEMA.to_owned(), |schema, (from, to)| schema.replace(from, to))
}

/// As Drizzle's documentation writes them: plural, and in snake case.
pub fn drizzle() -> String {
    renamed(&[
        ("\"user\"", "users"),
        ("\"session\"", "sessions"),
        ("\"account\"", "accounts"),
        ("\"verification\"", "verifications"),
        ("\"emailVerified\"", "email_verified"),
        ("\"createdAt\"", "created_at"),
        ("\"updatedAt\"", "updated_at"),
        ("\"expiresAt\"", "expires_at"),
        ("\"userId\"", "user_id"),
        ("\"accountId\"", "account_id"),
        ("\"providerId\"", "provider_id"),
        ("_userId_idx", "s_user_id_idx"),
        ("verification_identifier_idx", "verifications_identifier_idx"),
    ])
}

/// As Prisma writes them: in upper case, with timestamps without a time zone.
fn prisma() -> String {
    renamed(&[
        ("\"user\"", "\"User\""),
        ("\"session\"", "\"Session\""),
        ("\"account\"", "\"Account\""),
        ("\"verification\"", "\"Verification\""),
        ("timestamptz", "timestamp(3)"),
        ("now() + ", "now() at time zone 'utc' + "),
        ("now() - ", "now() at time zone 'utc' - "),
    ])
}

/// With `user: { modelName: "people" }`: only the foreign keys tell.
fn model_name() -> String {
    renamed(&[("\"user\"", "people")])
}

/// A database with Neon Auth's schema: its owner is another role, and ids are of type uuid.
pub async fn neon_auth() -> (Database, PgConnection) {
    let database = Database::create_empty().await;
    let tables = renamed(&[
        ("\"user\"", "neon_auth.\"user\""),
        ("table \"session\"", "table neon_auth.session"),
        ("into \"session\"", "into neon_auth.session"),
        ("table \"account\"", "table neon_auth.account"),
        ("table \"verification\"", "table neon_auth.verification"),
        ("on \"session\"", "on neon_auth.session"),
        ("on \"account\"", "on neon_auth.account"),
        ("on \"verification\"", "on neon_auth.verification"),
        ("\"id\" text", "\"id\" uuid"),
        ("\"userId\" text", "\"userId\" uuid"),
        ("'ada-with-an-id-of-more-than-36-characters'", "'0b8f1f0e-0000-4000-8000-000000000001'"),
        ("('s1'", "(gen_random_uuid()"),
        ("('s2'", "(gen_random_uuid()"),
    ]);
    database
        .batch(&format!(
            "do $$ begin create role neon_auth nologin; exception when duplicate_object then null; end $$;
            create schema neon_auth authorization neon_auth;
            set role neon_auth;
            {tables}
            grant usage on schema neon_auth to tasks_owner;
            grant all on all tables in schema neon_auth to tasks_owner with grant option;
            reset role;"
        ))
        .await;
    let url = DatabaseUrl::parse(&database.owner_url()).unwrap();
    (database, migrations::connect(&url).await.unwrap())
}

pub async fn with_tables(schema: &str) -> PgConnection {
    let mut connection = connected().await;
    execute(&mut connection, schema).await;
    connection
}

async fn up(connection: &mut PgConnection, auth: AuthOptions) -> Result<(), String> {
    migrations::up(connection, auth).await.map(drop).map_err(|error| error.to_string())
}

/// `up` and `down` twice: the session is found, the tasks belong to its user, and no second set of tables is left.
async fn is_adopted(connection: &mut PgConnection, name: &str, users: &str, lookup: &str) {
    let before = objects(connection).await;
    let found = |columns: &str| format!("select {columns} from migration_tools.auth_tables where kind = 'user'");
    for round in ["first", "second"] {
        up(connection, AuthOptions::default()).await.unwrap_or_else(|error| panic!("{name}, {round}: {error}"));
        assert_eq!(rows(connection, &found("tab::text")).await, [users], "{name}");
        assert_eq!(rows(connection, "select public.session_lookup()").await, [lookup], "{name}");
        for (token, count) in [("live", 1), ("expired", 0), ("unknown", 0)] {
            let mut forms = vec![format!("'{token}'::text")];
            if lookup == "hash" {
                forms.push(format!("sha256(convert_to('{token}', 'UTF8'))"));
            }
            for form in forms {
                let caller = format!("select user_id from public.caller({form})");
                assert_eq!(rows(connection, &caller).await.len(), count, "{name}: {form}");
            }
        }
        let insert = "insert into tasks (user_id, title) select user_id, 'x' from public.caller('live'::text)";
        execute(connection, insert).await;
        let keys = "select confrelid::regclass::text as users, confdeltype::text as on_delete from pg_constraint
            where conrelid in ('tasks'::regclass, 'idempotency_keys'::regclass) and contype = 'f'";
        assert_eq!(rows(connection, keys).await, [format!("{users} c"), format!("{users} c")], "{name}");
        assert_eq!(migrations::check(connection).await.unwrap(), [""; 0], "{name}");
        let extra = "select 1 from unnest('{user,session,account,verification}'::text[]) as name
            where obj_description(to_regclass(format('public.%I', name)), 'pg_class') is not null";
        assert_eq!(rows(connection, extra).await, [""; 0], "{name}: nothing was made beside the tables");
        execute(connection, "delete from tasks").await;
        down(connection).await;
        assert_eq!(objects(connection).await, before, "{name}");
    }
}

#[tokio::test]
async fn better_auths_tables_are_found_under_every_name() {
    for (name, schema, users) in [
        ("its default", BETTER_AUTH_SCHEMA.to_owned(), "\"user\""),
        ("Drizzle's plural", drizzle(), "users"),
        ("Prisma's", prisma(), "\"User\""),
        ("modelName", model_name(), "people"),
        (
            "modelName, ids of type uuid",
            {
                let uuid =
                    model_name().replace("\"id\" text", "\"id\" uuid").replace("\"userId\" text", "\"userId\" uuid");
                let ids = ["'ada-with-an-id-of-more-than-36-characters'", "'s1'", "'s2'"];
                ids.iter().zip(1..).fold(uuid, |schema, (id, number)| {
                    schema.replace(id, &format!("'0b8f1f0e-0000-4000-8000-00000000000{number}'"))
                })
            },
            "people",
        ),
    ] {
        is_adopted(&mut with_tables(&schema).await, name, users, "hash").await;
    }
}

#[tokio::test]
async fn neon_auths_tables_are_found_and_left_as_they_are() {
    let (_database, mut connection) = neon_auth().await;
    let everything =
        "select (select count(*) from pg_index where indrelid = c.oid), relname, relacl::text, relowner::regrole::text, relrowsecurity,
            (select count(*) from pg_trigger where tgrelid = c.oid and not tgisinternal)
        from pg_class c where relnamespace = 'neon_auth'::regnamespace order by 2";
    let before = rows(&mut connection, everything).await;
    is_adopted(&mut connection, "Neon Auth", "neon_auth.\"user\"", "token").await;
    up(&mut connection, AuthOptions::default()).await.unwrap();
    assert_eq!(rows(&mut connection, everything).await, before);
    assert_eq!(rows(&mut connection, "select public.purge_expired('session', 10)").await, ["0"], "Neon purges its own");
}

#[tokio::test]
async fn tasks_of_before_are_kept_and_belong_to_the_users_that_are_found() {
    let tasks = "create table tasks (id serial primary key, user_id text not null references users (id), title varchar(200) not null,
            description text, completed boolean, created_at timestamp, updated_at timestamp);
        insert into tasks (user_id, title) select id, 'from before' from users";
    let mut connection = with_tables(&format!("{} {tasks}", drizzle())).await;
    for _ in 0..2 {
        up(&mut connection, AuthOptions::default()).await.unwrap();
        assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
        assert_eq!(rows(&mut connection, "select title from tasks").await, ["from before"]);
        down(&mut connection).await;
        assert_eq!(rows(&mut connection, "select title from tasks").await, ["from before"]);
    }
    up(&mut connection, AuthOptions::default()).await.unwrap();
    execute(&mut connection, "delete from users").await;
    assert_eq!(rows(&mut connection, "select title from tasks").await, [""; 0], "they are deleted with their user");
}

#[tokio::test]
async fn an_unused_set_of_earlier_migrations_gives_way() {
    let (database, mut connection) = neon_auth().await;
    let move_away = |from: &str, to: &str| format!("alter schema {from} rename to {to}");
    database.batch(&move_away("neon_auth", "not_yet")).await;
    up(&mut connection, AuthOptions::default()).await.unwrap();
    assert_eq!(rows(&mut connection, "select public.session_lookup()").await, ["hash"]);
    database.batch(&move_away("not_yet", "neon_auth")).await;
    let differences = migrations::check(&mut connection).await.unwrap();
    assert!(differences.iter().any(|it| it.contains("neon_auth.session")), "{differences:?}");
    up(&mut connection, AuthOptions::default()).await.unwrap();
    assert_eq!(rows(&mut connection, "select public.session_lookup()").await, ["token"]);
    assert_eq!(rows(&mut connection, "select to_regclass('public.session') is null as is_gone").await, ["true"]);
    assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn what_is_not_clear_is_refused_with_a_way_out() {
    let both = format!("{BETTER_AUTH_SCHEMA} {}", drizzle());
    let one_table_twice =
        format!("{BETTER_AUTH_SCHEMA} alter table session add user_id text, add expires_at timestamp");
    let required_twice = format!(
        "{BETTER_AUTH_SCHEMA} alter table account add provider varchar(50) not null default ''; alter table account alter provider drop default"
    );
    for (schema, says) in [
        (&*both, vec!["public.session", "public.sessions", "AUTH_SCHEMA"]),
        (
            &one_table_twice,
            vec!["public.session has both columns user_id and userId, expires_at and expiresAt", "keep"],
        ),
        (&required_twice, vec!["public.account", "provider", "providerId", "keep"]),
        ("create table users (id serial primary key, email text)", vec!["public.users", "--auth-tables"]),
        (&drizzle().replace("\"token\"", "secret"), vec!["public.sessions", "token"]),
        (&format!("create schema auth; {BETTER_AUTH_SCHEMA}"), vec![]),
    ] {
        let mut connection = with_tables(schema).await;
        let before = objects(&mut connection).await;
        let result = up(&mut connection, AuthOptions::default()).await;
        if says.is_empty() {
            result.unwrap();
            let auth = AuthOptions { schema: Some("auth".into()), ..AuthOptions::default() };
            let error = up(&mut connection, auth).await.unwrap_err();
            assert!(error.contains("AUTH_SCHEMA is auth"), "{error}");
            continue;
        }
        let error = result.unwrap_err();
        for part in says {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert_eq!(objects(&mut connection).await, before, "{error}");
    }
}

#[tokio::test]
async fn check_reports_a_second_spelling_that_came_later() {
    let mut connection = with_tables(BETTER_AUTH_SCHEMA).await;
    up(&mut connection, AuthOptions::default()).await.unwrap();
    execute(&mut connection, "alter table session add user_id text").await;
    let differences = migrations::check(&mut connection).await.unwrap();
    assert!(differences.len() == 1 && differences[0].contains("both columns"), "{differences:?}");
}

#[tokio::test]
async fn the_named_schema_decides_and_the_choice_stays() {
    let (_database, mut connection) = neon_auth().await;
    execute(&mut connection, BETTER_AUTH_SCHEMA).await;
    let error = up(&mut connection, AuthOptions::default()).await.unwrap_err();
    assert!(error.contains("public.session, neon_auth.session") && error.contains("AUTH_SCHEMA"), "{error}");
    for (schema, lookup) in [(Some("neon_auth"), "token"), (None, "token"), (Some("public"), "hash"), (None, "hash")] {
        let auth = AuthOptions { schema: schema.map(str::to_owned), ..AuthOptions::default() };
        up(&mut connection, auth).await.unwrap();
        assert_eq!(rows(&mut connection, "select public.session_lookup()").await, [lookup], "{schema:?}");
        assert_eq!(rows(&mut connection, "select id from session where token = 'live'").await, ["s1"], "kept");
    }
}

#[tokio::test]
async fn the_tables_of_an_empty_database_are_a_choice() {
    for tables in [AuthTables::Schema, AuthTables::BetterAuth, AuthTables::None] {
        let mut connection = connected().await;
        let auth = AuthOptions { tables, ..AuthOptions::default() };
        up(&mut connection, auth.clone()).await.unwrap();
        let column = "select attname from pg_attribute where attrelid = to_regclass('public.session') and attname in ('user_id', 'userId')";
        let (columns, lookup) = match tables {
            AuthTables::BetterAuth => (vec!["userId"], "hash"),
            AuthTables::None => (vec![], "none"),
            _ => (vec!["user_id"], "hash"),
        };
        assert_eq!(rows(&mut connection, column).await, columns, "{tables:?}");
        assert_eq!(rows(&mut connection, "select public.session_lookup()").await, [lookup], "{tables:?}");
        let differences = migrations::check(&mut connection).await.unwrap();
        if tables == AuthTables::None {
            assert!(differences.len() == 1 && differences[0].contains("run its own migration"), "{differences:?}");
            assert!(rows(&mut connection, "select user_id from public.caller('live'::text)").await.is_empty());
            // The front end migrates, and the next up, with the same options or none, finds its tables.
            up(&mut connection, AuthOptions::default()).await.unwrap();
            execute(&mut connection, BETTER_AUTH_SCHEMA).await;
            up(&mut connection, auth).await.unwrap();
            assert_eq!(rows(&mut connection, "select user_id from public.caller('live'::text)").await.len(), 1);
            assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0], "{tables:?}");
        } else {
            assert_eq!(differences, [""; 0], "{tables:?}");
            down(&mut connection).await;
            assert_eq!(objects(&mut connection).await, [""; 0], "{tables:?}");
        }
    }
}

#[tokio::test]
async fn tables_that_down_dropped_come_back_in_better_auths_spelling() {
    let uuid = renamed(&[("\"id\" text", "\"id\" uuid"), ("\"userId\" text", "\"userId\" uuid")]);
    let uuid = uuid.split("insert into").next().unwrap();
    for (tables, id_type) in [("", "text"), (uuid, "uuid")] {
        let mut connection = with_tables(tables).await;
        let auth = AuthOptions { tables: AuthTables::BetterAuth, ..AuthOptions::default() };
        up(&mut connection, auth).await.unwrap();
        execute(
            &mut connection,
            "insert into \"user\" (id, name, email, \"emailVerified\") values ('0b8f1f0e-0000-4000-8000-000000000001', 'Ada', 'a@b.c', true);
            insert into session (id, \"expiresAt\", token, \"updatedAt\", \"userId\")
                select id, now(), 'a token', now(), id from \"user\"",
        )
        .await;
        down(&mut connection).await;
        execute(&mut connection, "drop table if exists account, verification").await;
        up(&mut connection, AuthOptions::default()).await.unwrap();
        let columns = "select attrelid::regclass, attname, format_type(atttypid, null) from pg_attribute
            where attrelid in (to_regclass('account'), to_regclass('verification')) and attname ~* '^(id|user_?id|expires_?at)$'
            order by 1, attnum";
        let expected = [
            format!("account id {id_type}"),
            format!("account userId {id_type}"),
            format!("verification id {id_type}"),
            "verification expiresAt timestamp with time zone".to_owned(),
        ];
        assert_eq!(rows(&mut connection, columns).await, expected);
        assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
    }
}

#[tokio::test]
async fn sessions_are_inserted_where_functions_are_not_public_by_default() {
    let private = "alter default privileges revoke execute on functions from public";
    let mut connection = with_tables(&format!("{private}; {BETTER_AUTH_SCHEMA}")).await;
    up(&mut connection, AuthOptions::default()).await.unwrap();
    let is_public = "select has_function_privilege('public', 'public.token_hash(text)', 'execute')";
    assert_eq!(rows(&mut connection, is_public).await, ["true"]);
    assert_eq!(migrations::check(&mut connection).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_role_that_may_create_in_public_ends_up_with_a_sentence() {
    let mut connection = with_tables("grant create on schema public to public").await;
    up(&mut connection, AuthOptions::default()).await.unwrap();
    execute(&mut connection, "grant create on schema public to tasks_api").await;
    let error = up(&mut connection, AuthOptions::default()).await.unwrap_err();
    assert!(error.contains("tasks_api may create objects in the schema public"), "{error}");
}
