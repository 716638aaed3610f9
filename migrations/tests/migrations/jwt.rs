//! The keys of Better Auth's JWTs, and the session check for a verified JWT.
use crate::{
    BETTER_AUTH_SCHEMA,
    auth_tables::{drizzle, neon_auth, with_tables},
    execute, rows, up,
};
use migrations::{check, notes};
use sqlx::PgConnection;
use testing::Database;

/// The id of the only user of [`BETTER_AUTH_SCHEMA`].
const ADA: &str = "ada-with-an-id-of-more-than-36-characters";
/// The id of the only user of Neon Auth's schema in the tests.
const UUID: &str = "0b8f1f0e-0000-4000-8000-000000000001";

/// The table of better-auth 1.4's jwt plugin, with one key.
const KEYS: &str = r#"
    create table jwks ("id" text not null primary key, "publicKey" text not null, "privateKey" text not null,
        "createdAt" timestamptz not null, "expiresAt" timestamptz);
    insert into jwks values ('k1', 'the public half', 'the private half', now(), 'epoch');
"#;

/// The keys that the functions get.
async fn keys(connection: &mut PgConnection) -> Vec<String> {
    rows(connection, "select concat_ws('|', id, public_key, algorithm, expires_at) from public.jwt_keys() order by 1")
        .await
}

/// Whether `caller` accepts a JWT that was issued this many seconds ago.
async fn is_let_in(connection: &mut PgConnection, sub: &str, seconds_ago: i32) -> bool {
    let jwt = format!("array['{sub}', (floor(extract(epoch from now()))::bigint - {seconds_ago})::text]");
    let users = rows(connection, &format!("select user_id from public.caller({jwt})")).await;
    assert!(users.is_empty() || users == [sub], "{users:?}");
    !users.is_empty()
}

async fn plain_role(database: &Database, role: &str) {
    // The role is not dropped: databases of other tests, which run at the same time, refer to it too.
    let create = format!("do $$ begin create role {role}; exception when duplicate_object then null; end $$");
    database.batch(&create).await;
}

#[tokio::test]
async fn the_functions_get_the_public_halves_in_either_spelling() {
    let mut connection = with_tables(BETTER_AUTH_SCHEMA).await;
    up(&mut connection).await;
    assert_eq!(keys(&mut connection).await, [""; 0], "there is no table");
    // The plugin is added later, and no up is needed.
    execute(&mut connection, KEYS).await;
    assert_eq!(keys(&mut connection).await, ["k1|the public half|0"]);
    execute(
        &mut connection,
        "alter table jwks rename \"publicKey\" to public_key; alter table jwks rename \"expiresAt\" to expires_at;
        alter table jwks rename \"createdAt\" to created_at; alter table jwks add alg text;
        update jwks set alg = 'EdDSA', expires_at = null; insert into jwks values ('k2', 'another', '', now(), 'infinity');",
    )
    .await;
    assert_eq!(keys(&mut connection).await, ["k1|the public half|EdDSA", "k2|another|1000000000000"]);
}

#[tokio::test]
async fn a_table_that_a_planter_planted_holds_no_keys() {
    let (database, mut connection) = neon_auth().await;
    plain_role(&database, "a_planter").await;
    up(&mut connection).await;
    let plant = |schema: &str| {
        format!(
            "grant create, usage on schema {schema} to a_planter; set role a_planter;
            {}; grant select on {schema}.jwks to tasks_owner; reset role",
            KEYS.replace(" jwks ", &format!(" {schema}.jwks "))
        )
    };
    // Beside other sessions than those that were found.
    database.batch(&plant("public")).await;
    assert_eq!(keys(&mut connection).await, [""; 0]);
    assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
    // Beside the sessions, with another owner.
    database.batch(&plant("neon_auth")).await;
    assert_eq!(keys(&mut connection).await, [""; 0]);
    let says = "the keys of JWTs in neon_auth.jwks are not used, because it belongs to a_planter and the sessions to neon_auth";
    assert_eq!(check(&mut connection).await.unwrap(), [says]);
    database.batch("alter table neon_auth.jwks owner to neon_auth").await;
    assert_eq!(keys(&mut connection).await, ["k1|the public half|0"]);
    assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn who_may_write_to_the_keys_is_named() {
    let (database, mut connection) = neon_auth().await;
    for role in ["a_planter", "a_reader"] {
        plain_role(&database, role).await;
    }
    let make = KEYS.replace(" jwks ", " neon_auth.jwks ");
    database
        .batch(&format!("set role neon_auth; {make}; grant select on neon_auth.jwks to tasks_owner, a_reader"))
        .await;
    up(&mut connection).await;
    let writers = async |connection: &mut PgConnection| {
        let notes = notes(connection).await.unwrap();
        notes.into_iter().filter(|note| note.contains("write to neon_auth.jwks")).collect::<Vec<_>>()
    };
    assert_eq!(writers(&mut connection).await, [""; 0]);
    for right in ["insert", "update (\"publicKey\")", "trigger"] {
        database.batch(&format!("grant {right} on neon_auth.jwks to a_planter")).await;
        assert_eq!(writers(&mut connection).await, ["the role a_planter may write to neon_auth.jwks"], "{right}");
        database.batch(&format!("revoke {right} on neon_auth.jwks from a_planter")).await;
    }
    assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);

    database.batch("grant insert on neon_auth.jwks to public").await;
    assert_eq!(writers(&mut connection).await, ["everybody may write to neon_auth.jwks"]);
    assert_eq!(check(&mut connection).await.unwrap(), ["the role tasks_api may write to neon_auth.jwks"]);
}

#[tokio::test]
async fn keys_or_users_that_the_owner_may_not_read_are_an_error_of_check_and_of_no_call() {
    let (database, mut connection) = neon_auth().await;
    let make = KEYS.replace(" jwks ", " neon_auth.jwks ");
    database.batch(&format!("set role neon_auth; {make}; reset role")).await;
    up(&mut connection).await;
    database.batch("revoke select on neon_auth.\"user\" from tasks_owner").await;
    up(&mut connection).await;
    assert_eq!(keys(&mut connection).await, [""; 0]);
    assert!(!is_let_in(&mut connection, UUID, 0).await);
    let says =
        |table: &str| format!("the role tasks_owner may not select from neon_auth.{table}, so no JWT is accepted");
    assert_eq!(check(&mut connection).await.unwrap(), [says("\"user\""), says("jwks")]);
    database.batch("grant select on neon_auth.\"user\", neon_auth.jwks to tasks_owner").await;
    up(&mut connection).await;
    assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
    assert!(is_let_in(&mut connection, UUID, 0).await);
}

#[tokio::test]
async fn a_jwt_needs_a_live_session_that_is_no_younger() {
    for (kind, schema) in [("camelCase", BETTER_AUTH_SCHEMA.to_owned()), ("snake_case", drizzle())] {
        let mut connection = with_tables(&schema).await;
        up(&mut connection).await;
        let (session, created_at) =
            if kind == "camelCase" { ("session", "\"createdAt\"") } else { ("sessions", "created_at") };
        for time_zone in ["UTC", "Pacific/Kiritimati"] {
            execute(&mut connection, &format!("set timezone = '{time_zone}'")).await;
            for (session_age, jwt_age, is_let) in
                [(60, 0, true), (60, 60, true), (60, 64, true), (60, 66, false), (-3, 0, true), (-30, 0, false)]
            {
                let age = format!("update {session} set {created_at} = now() - interval '{session_age} s'");
                execute(&mut connection, &age).await;
                assert_eq!(is_let_in(&mut connection, ADA, jwt_age).await, is_let, "{kind}: {session_age}, {jwt_age}");
            }
            execute(&mut connection, &format!("update {session} set {created_at} = now() - interval '1 minute'")).await;
        }
        assert!(!is_let_in(&mut connection, "nobody", 0).await);
        // The later end of several sessions, in UTC.
        let end = format!(
            "select abs(extract(epoch from expires_at - (now() at time zone 'utc')) - 3600) < 60 from public.caller(array['{ADA}', '9999999999'])"
        );
        assert_eq!(rows(&mut connection, &end).await, ["true"], "{kind}");
        let without_session =
            format!("select user_id, coalesce(expires_at::text, 'none') from public.caller(array['{ADA}'])");
        assert_eq!(rows(&mut connection, &without_session).await, [format!("{ADA} none")], "{kind}");

        execute(&mut connection, &format!("delete from {session} where token = 'live'")).await;
        assert!(!is_let_in(&mut connection, ADA, 0).await, "{kind}: only the expired session is left");
        assert_eq!(rows(&mut connection, &without_session).await, [format!("{ADA} none")], "{kind}");
        let users = if kind == "camelCase" { "\"user\"" } else { "users" };
        execute(&mut connection, &format!("delete from {users}")).await;
        assert_eq!(rows(&mut connection, &without_session).await, [""; 0], "{kind}: the user is gone");
    }
}

#[tokio::test]
async fn a_ban_ends_jwts_in_either_spelling_and_with_no_column_for_its_end() {
    for columns in [
        "banned boolean, add \"banExpires\" timestamptz",
        "banned boolean, add ban_expires timestamp",
        "banned boolean",
    ] {
        let mut connection = with_tables(BETTER_AUTH_SCHEMA).await;
        up(&mut connection).await;
        assert!(is_let_in(&mut connection, ADA, 0).await);
        // The admin plugin is added later, and its up is awaited.
        execute(&mut connection, &format!("alter table \"user\" add {columns}")).await;
        assert_eq!(check(&mut connection).await.unwrap().len(), 1);
        up(&mut connection).await;
        assert_eq!(check(&mut connection).await.unwrap(), [""; 0]);
        for (banned, is_let) in [("null", true), ("false", true), ("true", false)] {
            execute(&mut connection, &format!("update \"user\" set banned = {banned}")).await;
            assert_eq!(is_let_in(&mut connection, ADA, 0).await, is_let, "{columns}: {banned}");
            let without_session = format!("select user_id from public.caller(array['{ADA}'])");
            assert_eq!(rows(&mut connection, &without_session).await.len(), usize::from(is_let), "{columns}: {banned}");
        }
        let Some(column) = ["\"banExpires\"", "ban_expires"].into_iter().find(|name| columns.contains(name)) else {
            continue;
        };
        for time_zone in ["UTC", "Pacific/Niue"] {
            execute(&mut connection, &format!("set timezone = '{time_zone}'")).await;
            for (end, is_let) in [("+ interval '1 minute'", false), ("- interval '1 minute'", true)] {
                let end = format!("update \"user\" set {column} = now() at time zone 'utc' {end}");
                execute(&mut connection, "set timezone = 'UTC'").await;
                execute(&mut connection, &end).await;
                execute(&mut connection, &format!("set timezone = '{time_zone}'")).await;
                assert_eq!(is_let_in(&mut connection, ADA, 0).await, is_let, "{time_zone}: {end}");
            }
        }
    }
}

#[tokio::test]
async fn a_sub_that_is_no_uuid_is_nobody_where_ids_are() {
    let (_database, mut connection) = neon_auth().await;
    up(&mut connection).await;
    assert!(is_let_in(&mut connection, UUID, 0).await);
    for sub in [
        "ada",
        "",
        "0b8f1f0e",
        &UUID.to_uppercase(),
        &format!("{{{UUID}}}"),
        &format!("{UUID} "),
        "0b8f1f0e-0000-4000-8000-000000000002",
    ] {
        assert!(!is_let_in(&mut connection, sub, 0).await, "{sub}");
    }
}
