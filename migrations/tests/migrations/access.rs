//! Who else can reach sessions, passwords and signing keys: what `check` and `notes` say of each way.
use crate::{BETTER_AUTH_SCHEMA, empty_database, execute, superuser, up};
use migrations::{check, notes};
use shared::DatabaseUrl;
use sqlx::PgConnection;
use testing::Database;

/// The table of the signing keys of Better Auth's plugin jwt.
const WITH_KEYS: &str = r#"create table jwks (id text primary key, "publicKey" text not null, "privateKey" text not null,
    "createdAt" timestamptz not null, "expiresAt" timestamptz);"#;

/// Connects as the superuser, opens a transaction, and makes three roles, of which `way_member` does not inherit. All of it
/// disappears with the connection: roles belong to all databases of the server.
async fn with_three_roles(database: &Database) -> PgConnection {
    let mut connection = superuser(database).await;
    let roles = "begin; create role way_other login; create role way_group; create role way_member login noinherit;
        create schema elsewhere authorization tasks_owner; grant usage on schema elsewhere to public";
    execute(&mut connection, roles).await;
    connection
}

/// Fails unless the change, made by a superuser, leads to this sentence: a difference if it is the API's role's way, a note if
/// it is another's.
async fn assert_found(database: &Database, change: &str, sentence: &str) {
    let mut connection = with_three_roles(database).await;
    execute(&mut connection, "set local role tasks_owner").await;
    assert_eq!(check(&mut connection).await.unwrap(), [""; 0], "before {change}");
    assert_eq!(notes(&mut connection).await.unwrap(), [""; 0], "before {change}");
    execute(&mut connection, &format!("set local role none; {change}; set local role tasks_owner")).await;
    let (differences, notes) = (check(&mut connection).await.unwrap(), notes(&mut connection).await.unwrap());
    let found = if sentence.starts_with("the role tasks_api") { &differences } else { &notes };
    assert!(found.iter().any(|it| it == sentence), "{change}: {differences:#?} {notes:#?}");
}

#[tokio::test]
async fn every_way_to_the_sessions_is_found() {
    let database = Database::create_empty().await;
    let mut owner = migrations::connect(&DatabaseUrl::parse(&database.owner_url()).unwrap()).await.unwrap();
    execute(&mut owner, &format!("{BETTER_AUTH_SCHEMA} {WITH_KEYS}")).await;
    up(&mut owner).await;
    for (change, sentence) in [
        // Five for which `check` used to say that all is well.
        ("grant select (token) on session to tasks_api", "the role tasks_api may read session.token"),
        ("grant select on session to way_other", "the role way_other may read session.token"),
        (
            "grant select on session to way_group; alter role tasks_api noinherit; grant way_group to tasks_api",
            "the role tasks_api may become way_group, and then read session.token",
        ),
        (
            "set local role tasks_owner; create function elsewhere.tokens() returns setof text language sql security definer
                as 'select token from public.session'",
            "the role tasks_api may call elsewhere.tokens(), which runs with the rights of tasks_owner, who can read account, jwks, session, verification",
        ),
        (
            "set local role tasks_owner; create view elsewhere.shown as select row_to_json(s) from public.session s;
                grant select on elsewhere.shown to tasks_api",
            "the role tasks_api may read the view elsewhere.shown, which shows session",
        ),
        // Others.
        (
            "set local role tasks_owner; create materialized view elsewhere.kept as select token from public.session;
                create view elsewhere.shown as select * from elsewhere.kept; grant select on elsewhere.shown to way_other",
            "the role way_other may read the view elsewhere.shown, which shows session",
        ),
        ("grant select on session to public", "everybody may read session.token"),
        ("grant pg_read_all_data to tasks_api", "the role tasks_api is a member of pg_read_all_data"),
        ("grant tasks_owner to way_member", "the role way_member may become tasks_owner, and then read account.accessToken, account.idToken, account.password, account.refreshToken, jwks.privateKey, session.token, verification.value"),
        ("grant select (\"privateKey\") on jwks to tasks_api", "the role tasks_api may read jwks.privateKey"),
        ("grant select (\"privateKey\") on jwks to way_other", "the role way_other may read jwks.privateKey"),
        ("grant select (password) on account to way_other", "the role way_other may read account.password"),
        ("grant insert on session to way_other", "the role way_other may write to session"),
        ("grant trigger on session to tasks_api", "the role tasks_api should not have the right: session trigger"),
        ("grant update (\"userId\") on session to tasks_api", "the role tasks_api may write to session"),
        (
            "set local role tasks_owner; alter default privileges in schema public grant select on tables to way_other",
            "the role way_other gets rights on each table that tasks_owner makes in public, as on account, jwks, session, verification if it is made again",
        ),
        (
            "set local role tasks_owner; alter default privileges grant select on tables to tasks_api",
            "the role tasks_api gets rights on each table that tasks_owner makes, as on account, jwks, session, verification if it is made again",
        ),
        (
            "set local role tasks_owner; create table elsewhere.part () inherits (public.session); grant select on elsewhere.part to way_other",
            "the role way_other may read elsewhere.part.token",
        ),
        (
            "create function elsewhere.spy() returns trigger language plpgsql as 'begin return new; end'; alter function elsewhere.spy() owner to way_other;
                create trigger spy before insert on session for each row execute function elsewhere.spy()",
            "the role way_other owns the function elsewhere.spy(), which sees each row written to session",
        ),
        ("alter role way_other replication", "the role way_other may copy the whole server as a replica"),
        (
            "grant postgres to way_other",
            "the role way_other may become postgres, and then read account.accessToken, account.idToken, account.password, account.refreshToken, jwks.privateKey, session.token, verification.value",
        ),
        ("create publication everything for table session", "the publication everything sends session to its subscribers"),
        (
            "grant pg_execute_server_program to way_other",
            "the role way_other is a member of pg_execute_server_program, and can read the files of the server",
        ),
    ] {
        assert_found(&database, change, sentence).await;
    }
}

#[tokio::test]
async fn what_opens_nothing_is_not_reported() {
    let database = Database::create_empty().await;
    let mut owner = migrations::connect(&DatabaseUrl::parse(&database.owner_url()).unwrap()).await.unwrap();
    execute(&mut owner, BETTER_AUTH_SCHEMA).await;
    up(&mut owner).await;
    let mut connection = with_three_roles(&database).await;
    let harmless = "
        set local role tasks_owner;
        create view elsewhere.of_the_reader with (security_invoker = true) as select token from public.session;
        create function elsewhere.of_the_caller() returns setof text language sql as 'select token from public.session';
        create function elsewhere.for_nobody() returns setof text language sql security definer as 'select token from public.session';
        revoke execute on function elsewhere.for_nobody() from public;
        create function elsewhere.of_a_trigger() returns trigger language plpgsql security definer as 'begin return new; end';
        create view elsewhere.for_nobody as select token from public.session;
        grant select on elsewhere.of_the_reader to public;
        alter default privileges grant select on sequences to public";
    execute(&mut connection, harmless).await;
    assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
    assert_eq!(notes(&mut connection).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_session_from_the_future_is_noted() {
    let without_zone = BETTER_AUTH_SCHEMA.replace("timestamptz", "timestamp");
    for (schema, now, karachi) in [
        (BETTER_AUTH_SCHEMA, "now()", "now() + interval '5 hours'"),
        // node-postgres writes a Date as local time.
        (&without_zone, "now() at time zone 'utc'", "now() at time zone 'Asia/Karachi'"),
    ] {
        let mut owner = migrations::connect(&empty_database().await).await.unwrap();
        execute(&mut owner, &format!("set timezone = 'Pacific/Kiritimati'; {schema}")).await;
        up(&mut owner).await;
        execute(&mut owner, &format!("update session set \"createdAt\" = {now}")).await;
        assert_eq!(notes(&mut owner).await.unwrap(), [""; 0]);
        execute(&mut owner, &format!("update session set \"createdAt\" = {karachi} where token = 'live'")).await;
        let notes = notes(&mut owner).await.unwrap();
        assert!(notes.len() == 1 && notes[0].starts_with("a session began 300 minutes from now"), "{notes:?}");
    }
}
