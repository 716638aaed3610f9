//! What other roles may do with the tables, and row-level security.
use crate::{BETTER_AUTH_SCHEMA, execute, rows, superuser, up};
use migrations::{AuthOptions, check, notes};
use shared::DatabaseUrl;
use sqlx::PgConnection;
use testing::Database;

/// Makes roles that stay: databases of other tests, which run at the same time, refer to them too.
async fn make_roles(connection: &mut PgConnection) {
    for (role, options) in [("internet", "nologin"), ("sign_in", "login")] {
        let create = format!(
            "do $$ begin create role {role} {options}; exception when duplicate_object or unique_violation then null; end $$"
        );
        execute(connection, &create).await;
    }
}

async fn with_roles(schema: &str) -> (Database, PgConnection) {
    let database = Database::create_empty().await;
    let mut connection = migrations::connect(&DatabaseUrl::parse(&database.owner_url()).unwrap()).await.unwrap();
    make_roles(&mut connection).await;
    execute(&mut connection, schema).await;
    (database, connection)
}

/// A connection with the rights of a role.
async fn acting_as(role: &str, database: &Database) -> PgConnection {
    let mut connection = superuser(database).await;
    execute(&mut connection, &format!("set role {role}")).await;
    connection
}

/// The tables in `public` on which a role has a right, each with its rights.
async fn rights_of(connection: &mut PgConnection, role: &str) -> Vec<String> {
    let query = format!(
        "select pg_class.oid::regclass, string_agg(lower(privilege_type), ',' order by privilege_type) from pg_class, aclexplode(relacl)
        where relnamespace = 'public'::regnamespace and grantee = '{role}'::regrole group by 1 order by pg_class.oid::regclass::text"
    );
    rows(connection, &query).await
}

/// The tables in `public` with row-level security.
async fn secured(connection: &mut PgConnection) -> Vec<String> {
    let query =
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relrowsecurity order by 1";
    rows(connection, query).await
}

const POLICIES: &str = "select polrelid::regclass, polname, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) from pg_policy order by polrelid::regclass::text";

/// As Supabase and Neon's Data API have them: each new table and function is open to a role of the internet.
const OPEN_BY_DEFAULT: &str = "alter default privileges in schema public grant all on tables to internet;
    alter default privileges in schema public grant all on sequences to internet;
    alter default privileges grant all on functions to internet;
    grant usage on schema public to internet;";

#[tokio::test]
async fn our_tables_are_closed_to_roles_that_have_rights_by_default() {
    let (_database, mut connection) = with_roles(OPEN_BY_DEFAULT).await;
    let functions = "select proname from pg_proc where pronamespace = 'public'::regnamespace and has_function_privilege('internet', oid, 'execute') order by 1";
    for _ in 0..2 {
        up(&mut connection).await;
        assert_eq!(rights_of(&mut connection, "internet").await, [""; 0]);
        assert_eq!(rows(&mut connection, functions).await, ["token_hash"], "whoever inserts a session executes it");
        assert_eq!(
            secured(&mut connection).await,
            [
                "_sqlx_migrations",
                "account",
                "idempotency_keys",
                "removed_tasks",
                "session",
                "tasks",
                "user",
                "verification"
            ]
        );
        assert_eq!(
            rows(&mut connection, POLICIES).await,
            ["idempotency_keys tasks_api true true", "removed_tasks tasks_api true true", "tasks tasks_api true true"]
        );
        assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
        let notes = notes(&mut connection).await.unwrap();
        assert!(notes.len() == 1 && notes[0].starts_with("the role internet gets rights on each table"), "{notes:?}");

        // Down leaves what was there before.
        migrations::down(&mut connection, Some(16), |_| {}).await.unwrap();
        let rights = rights_of(&mut connection, "internet").await;
        assert_eq!(rights.len(), 8);
        assert_eq!(rights, rights_of(&mut connection, "tasks_owner").await, "all that there are");
        assert_eq!(rows(&mut connection, functions).await.len(), 7, "everybody may execute all that there are");
        assert_eq!(secured(&mut connection).await, [""; 0]);
        assert_eq!(rows(&mut connection, POLICIES).await, [""; 0]);
    }
}

#[tokio::test]
async fn another_role_can_neither_read_nor_truncate_our_tables() {
    let (database, mut connection) = with_roles(OPEN_BY_DEFAULT).await;
    up(&mut connection).await;
    let mut internet = acting_as("internet", &database).await;
    for table in [
        "\"user\"",
        "session",
        "account",
        "verification",
        "tasks",
        "idempotency_keys",
        "removed_tasks",
        "_sqlx_migrations",
    ] {
        for statement in ["truncate", "select from", "delete from"] {
            let statement = format!("{statement} {table}");
            let error = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut internet).await.unwrap_err();
            assert!(error.to_string().contains("permission denied for table"), "{statement}: {error}");
        }
    }
    // Should somebody grant everything again, the rows are still hidden until the next up.
    execute(
        &mut connection,
        "insert into \"user\" (id, email) values ('ada', 'a@b.c'); grant all on \"user\", tasks to internet",
    )
    .await;
    execute(&mut connection, "insert into tasks (user_id, title) values ('ada', 'x')").await;
    assert_eq!(
        rows(&mut internet, "select (select count(*) from \"user\"), (select count(*) from tasks)").await,
        ["0 0"]
    );
    let differences = check(&mut connection).await.unwrap();
    assert!(
        differences
            .iter()
            .any(|it| it.contains("the role internet should not have the rights") && it.contains("on tasks")),
        "{differences:?}"
    );
    up(&mut connection).await;
    assert_eq!(rights_of(&mut connection, "internet").await, [""; 0]);
}

#[tokio::test]
async fn tables_that_another_role_uses_stay_as_they_are_until_up_is_forced() {
    let tasks = "create table tasks (id serial primary key, user_id text not null references \"user\" (id), title varchar(200) not null,
            description text, completed boolean, created_at timestamp, updated_at timestamp);
        grant select, insert, update, delete on \"user\", session, account, verification to sign_in;
        grant select (id, title) on tasks to sign_in";
    let (_database, mut connection) = with_roles(&format!("{BETTER_AUTH_SCHEMA} {tasks}")).await;
    let state = "select relname, relrowsecurity, (select string_agg(a::text, ' ' order by a::text) from unnest(relacl) as a where a::text !~ '^tasks_(api|owner)='), (select string_agg(attacl::text, ' ') from pg_attribute where attrelid = pg_class.oid)
        from pg_class where relname in ('user', 'session', 'account', 'verification', 'tasks') and relnamespace = 'public'::regnamespace order by 1";
    let before = rows(&mut connection, state).await;
    for _ in 0..2 {
        up(&mut connection).await;
        assert_eq!(rows(&mut connection, state).await, before);
        assert_eq!(secured(&mut connection).await, ["_sqlx_migrations", "idempotency_keys", "removed_tasks"]);
        assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
        let found = notes(&mut connection).await.unwrap();
        for table in ["\"user\"", "session", "account", "verification", "tasks"] {
            let note = format!("row-level security is off for {table}, on which these have rights: sign_in");
            assert!(found.contains(&note), "{found:#?}");
        }

        let forced = AuthOptions { closes_adopted_tables: true, ..AuthOptions::default() };
        migrations::up(&mut connection, forced).await.unwrap();
        assert_eq!(rights_of(&mut connection, "sign_in").await, [""; 0]);
        assert_eq!(notes(&mut connection).await.unwrap(), [""; 0]);
        assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
        assert_eq!(secured(&mut connection).await.len(), 8);
        // Closed they stay, also without the option.
        up(&mut connection).await;
        assert_eq!(secured(&mut connection).await.len(), 8);
        assert_eq!(rows(&mut connection, "select user_id from caller('live')").await.len(), 1);
        migrations::down(&mut connection, Some(0), |_| {}).await.unwrap();
        assert_eq!(rows(&mut connection, state).await, before);
    }
}

#[tokio::test]
async fn tables_that_nobody_else_uses_are_secured_and_come_back() {
    let (_database, mut connection) = with_roles(BETTER_AUTH_SCHEMA).await;
    for _ in 0..2 {
        up(&mut connection).await;
        assert_eq!(secured(&mut connection).await.len(), 8);
        assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
        migrations::down(&mut connection, Some(0), |_| {}).await.unwrap();
        assert_eq!(secured(&mut connection).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_role_that_was_let_in_by_hand_goes_on_signing_in_on_tables_of_ours() {
    let (database, mut connection) = with_roles("").await;
    up(&mut connection).await;
    migrations::down(&mut connection, Some(16), |_| {}).await.unwrap();
    execute(
        &mut connection,
        "grant select, insert, update, delete on \"user\", session, account, verification to sign_in",
    )
    .await;
    up(&mut connection).await;
    assert_eq!(secured(&mut connection).await, ["_sqlx_migrations", "idempotency_keys", "removed_tasks", "tasks"]);
    let found = notes(&mut connection).await.unwrap();
    assert!(
        found.contains(&"row-level security is off for session, on which these have rights: sign_in".to_owned()),
        "{found:#?}"
    );
    let sign_up = |id: &str| {
        format!(
            "insert into \"user\" (id, email) values ('{id}', '{id}@b.c');
        insert into session (id, user_id, token, expires_at) values ('{id}', '{id}', '{id}', now() + interval '1 day')"
        )
    };
    let mut front_end = acting_as("sign_in", &database).await;
    execute(&mut front_end, &sign_up("ada")).await;
    // With a policy of its own, row-level security does not lock it out.
    for table in ["\"user\"", "session", "account", "verification"] {
        execute(
            &mut connection,
            &format!("create policy front_end on {table} to sign_in using (true) with check (true)"),
        )
        .await;
    }
    up(&mut connection).await;
    assert_eq!(secured(&mut connection).await.len(), 8);
    execute(&mut front_end, &sign_up("bob")).await;
    assert_eq!(rows(&mut front_end, "select user_id from session order by 1").await, ["ada", "bob"]);
    assert_eq!(rows(&mut connection, "select user_id from caller('bob')").await, ["bob"]);
    let found = notes(&mut connection).await.unwrap();
    assert!(!found.iter().any(|it| it.contains("row-level")), "{found:#?}");
    // A right without a policy is noted.
    execute(&mut connection, "drop policy front_end on session").await;
    up(&mut connection).await;
    let found = notes(&mut connection).await.unwrap();
    assert!(
        found.contains(
            &"row-level security is on, and hides the rows of session, on which these have rights: sign_in".to_owned()
        ),
        "{found:#?}"
    );
}

#[tokio::test]
async fn row_level_security_of_before_stays_and_the_api_gets_a_policy() {
    let tasks = "create table tasks (id serial primary key, user_id text not null references \"user\" (id), title varchar(200) not null,
            description text, completed boolean, created_at timestamp, updated_at timestamp);
        alter table tasks enable row level security; alter table session enable row level security;
        grant select on tasks to internet; create policy own on tasks to internet using (user_id = current_setting('me', true))";
    let (database, mut connection) = with_roles(&format!(
        "{BETTER_AUTH_SCHEMA} {tasks}; insert into tasks (user_id, title) select id, 'x' from \"user\""
    ))
    .await;
    for _ in 0..2 {
        up(&mut connection).await;
        assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
        let mut api = acting_as("tasks_api", &database).await;
        assert_eq!(rows(&mut api, "select title from tasks").await, ["x"]);
        assert_eq!(rights_of(&mut connection, "internet").await, ["tasks select"]);
        migrations::down(&mut connection, Some(16), |_| {}).await.unwrap();
        assert_eq!(secured(&mut connection).await, ["session", "tasks"]);
        assert_eq!(rows(&mut connection, "select polname from pg_policy").await, ["own"]);
    }
}

#[tokio::test]
async fn a_member_of_the_owner_may_migrate() {
    let (database, mut connection) = with_roles("").await;
    database.batch(&format!(
        "do $$ begin create role table_owner; exception when duplicate_object then null; end $$;
        grant create, usage on schema public to table_owner; grant table_owner to tasks_owner; set role table_owner; {BETTER_AUTH_SCHEMA}; reset role"
    )).await;
    up(&mut connection).await;
    assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
    assert_eq!(secured(&mut connection).await.len(), 8);
    assert_eq!(rows(&mut connection, "select user_id from caller('live')").await.len(), 1);
    execute(&mut connection, "alter table session force row level security").await;
    let differences = check(&mut connection).await.unwrap();
    assert_eq!(differences, ["row-level security hides session from tasks_owner, whose rights the session check has"]);
}
