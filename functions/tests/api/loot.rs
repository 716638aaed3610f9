//! What somebody with the password of `tasks_api` gets of the callers' requests: nothing that opens a session.
use crate::api::{Api, get, post};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use testing::{Client, PostgresLog, SERVICES, SimpleQueryMessage, User};

/// The functions' prepared statements, with their parameters' types.
const PREPARED: &str = "select name, statement, array_to_string(parameter_types, ',') from pg_prepared_statements
    where statement like '%public.%'";

/// Somebody with the API's password, as a client of the pooler, which has one server connection for the role.
struct Thief {
    client: Client,
    /// The user to whose tasks the loot is added.
    user: User,
}

impl Thief {
    async fn new(api: &Api) -> Self {
        let client = api.database.connect_as_api(SERVICES.pooler_port).await.expect("the API's role can connect");
        Self { client, user: api.database.sign_up("eve").await }
    }

    /// Prepares again, under the same names, what the functions have prepared. `forge` makes the new text of the old
    /// one and the parameters' types. Returns how many it found.
    async fn prepare_again(&self, forge: impl Fn(&str, &[&str]) -> String) -> usize {
        let mut count = 0;
        for message in self.client.simple_query(PREPARED).await.expect("the prepared statements") {
            let SimpleQueryMessage::Row(row) = message else { continue };
            let column = |index: usize| row.get(index).expect("not null");
            let (name, types) = (column(0), column(2).split(',').collect::<Vec<_>>());
            let forged = forge(column(1), &types);
            let again = format!("deallocate \"{name}\"; prepare \"{name}\" ({}) as {forged}", types.join(", "));
            self.client.batch_execute(&again).await.unwrap_or_else(|error| panic!("{again}: {error:?}"));
            count += 1;
        }
        count
    }

    /// Like [`Thief::prepare_again`]: the statements answer as before, and also collect their parameters in the thief's tasks.
    async fn collect_parameters(&self) -> usize {
        let user_id = &self.user.id;
        let forge = |statement: &str, types: &[&str]| {
            let parameters: Vec<_> = (1..=types.len()).map(|number| format!("${number}::text")).collect();
            let loot = format!(
                "loot as (insert into public.tasks (user_id, title) select '{user_id}', left(it, 200)
                from unnest(array[{}]) it where it <> '')",
                parameters.join(", ")
            );
            match statement.strip_prefix("with ") {
                Some(rest) => format!("with {loot}, {rest}"),
                None => format!("with {loot} {statement}"),
            }
        };
        self.prepare_again(forge).await
    }

    /// What was collected.
    async fn loot(&self, api: &Api) -> BTreeSet<String> {
        let rows = api.database.sql("select title from public.tasks where user_id = $1", &[&self.user.id]).await;
        rows.iter().map(|row| row.get(0)).collect()
    }
}

/// Starts the API with prepared statements.
async fn start_preparing() -> Api {
    let mut api = Api::with_settings(&[("PREPARED_STATEMENTS", "true")]).await;
    api.connect_as_to_neon(SERVICES.pooler_port);
    api
}

/// How many statements the functions of [`call_functions`] prepare: 1, 4 and 2, for a token and for a JWT.
const STATEMENTS: usize = 14;

/// Calls functions that read and write, as each user.
async fn call_functions(api: &mut Api, users: &[&User]) {
    for user in users {
        for request in [
            get("/api/session"),
            get("/api/tasks"),
            get(&format!("/api/{}/tasks?limit=9", user.id)),
            post("/api/tasks").header("idempotency-key", "once").json(json!({"title": "a task"})),
        ] {
            let answer = api.call(request.bearer(&user.token)).await;
            assert!(answer.status < 300, "{answer:?}");
        }
    }
}

/// How PostgreSQL shows the digest of a token.
fn digest(token: &str) -> String {
    let hex: String = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{hex}")
}

/// The status of a request with each captured value as its bearer: as it is and, if it is binary, in every usual encoding.
async fn statuses_as_bearers(api: &mut Api, loot: &BTreeSet<String>) -> BTreeSet<u64> {
    let mut statuses = BTreeSet::new();
    for value in loot {
        let mut guesses = vec![value.clone()];
        if let Some(hex) = value.strip_prefix("\\x") {
            let digits: Vec<_> =
                hex.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned()).collect();
            let bytes: Vec<_> = digits.iter().filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
            let latin: String = bytes.iter().map(|byte| char::from(*byte)).collect();
            guesses.extend([
                hex.to_owned(),
                hex.to_uppercase(),
                STANDARD.encode(&bytes),
                URL_SAFE_NO_PAD.encode(&bytes),
                latin,
            ]);
        }
        for guess in guesses {
            statuses.insert(api.call(get("/api/session").bearer(&guess)).await.status);
        }
    }
    statuses
}

#[tokio::test]
#[ignore = "needs a PgBouncer that tracks prepared statements: cargo xtask test versions"]
async fn statements_prepared_again_by_a_thief_collect_nothing_that_opens_a_session() {
    let mut api = start_preparing().await;
    let (ada, bob) = (api.database.sign_up("ada").await, api.database.sign_up("bob").await);
    let thief = Thief::new(&api).await;
    call_functions(&mut api, &[&ada, &bob]).await;
    assert_eq!(thief.collect_parameters().await, STATEMENTS);
    call_functions(&mut api, &[&ada, &bob]).await;

    let loot = thief.loot(&api).await;
    // The attack itself works: the functions did execute the thief's statements.
    for user in [&ada, &bob] {
        assert!(loot.contains(&digest(&user.token)) && loot.contains(&user.id), "{loot:?}");
        assert!(!loot.iter().any(|value| value.contains(&user.token)), "{loot:?}");
    }
    let mut fresh = Api::over(api.database);
    assert_eq!(statuses_as_bearers(&mut fresh, &loot).await, BTreeSet::from([401]), "{loot:?}");
}

#[tokio::test]
#[ignore = "needs a PgBouncer that tracks prepared statements: cargo xtask test versions"]
async fn the_same_theft_from_a_statement_with_the_token_opens_its_session() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let thief = Thief::new(&api).await;
    let client = api.database.connect_as_api(SERVICES.pooler_port).await.expect("the API's role can connect");
    let by_token = client.prepare("select s.user_id::text from public.caller($1::text) s").await.expect("a statement");
    let user_id = async || -> String { client.query_one(&by_token, &[&ada.token]).await.expect("a user").get(0) };
    assert_eq!(user_id().await, ada.id);
    assert_eq!(thief.collect_parameters().await, 1);
    assert_eq!(user_id().await, ada.id);
    let loot = thief.loot(&api).await;
    assert_eq!(loot, BTreeSet::from([ada.token.clone()]));
    assert_eq!(statuses_as_bearers(&mut api, &loot).await, BTreeSet::from([200]));
}

#[tokio::test]
#[ignore = "needs a PgBouncer that tracks prepared statements: cargo xtask test versions"]
async fn a_thief_who_forges_an_error_does_not_make_the_functions_send_tokens() {
    let mut api = start_preparing().await;
    let ada = api.database.sign_up("ada").await;
    let name = &api.database.name;
    api.database.batch(&format!("alter role tasks_api in database {name} set log_statement = 'all'")).await;
    let server_log = PostgresLog::from_now();
    let thief = Thief::new(&api).await;
    call_functions(&mut api, &[&ada]).await;
    // As in a database whose schema lacks caller(bytea): an error of class undefined_function.
    let forge = |_: &str, _: &[&str]| "select (case when $1 is not null then 'no_such()' end)::regprocedure".to_owned();
    assert_eq!(thief.prepare_again(forge).await, STATEMENTS);
    for _ in 0..2 {
        call_functions(&mut api, &[&ada]).await;
    }
    let log = server_log.text();
    assert!(log.contains("function \"no_such()\" does not exist"), "the functions executed the thief's statements");
    assert!(log.contains(&digest(&ada.token)), "the log shows what the functions send");
    assert!(!log.contains(&ada.token), "a function sent the token");
}

#[tokio::test]
async fn what_the_apis_role_can_make_the_server_log_opens_no_session() {
    // Where sessions are looked up by the token, the log shows it, or the test would prove nothing.
    for (schema, shows_the_token) in [("drop function public.caller(bytea)", true), ("", false)] {
        let mut api = Api::start().await;
        let ada = api.database.sign_up("ada").await;
        api.database.batch(schema).await;
        let thief = api.database.connect_as_api(SERVICES.postgres_port).await.expect("the API's role can connect");
        for setting in [
            // Values of a failed statement, and a reason to fail.
            "log_parameter_max_length_on_error = -1",
            "default_transaction_read_only = on",
            // The plan of each statement, with its values, wrapped at spaces.
            "debug_print_plan = on",
            "debug_pretty_print = off",
        ] {
            let statement = format!("alter role tasks_api in database {} set {setting}", api.database.name);
            thief.batch_execute(&statement).await.expect("a role may change its own defaults");
        }
        let server_log = PostgresLog::from_now();
        assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.status, 200);
        assert!(api.call(post("/api/tasks").bearer(&ada.token).json(json!({"title": "x"}))).await.status >= 500);
        let log = server_log.text().split_whitespace().collect::<Vec<_>>().join(" ");
        let bytes =
            |value: &[u8]| value.iter().map(|byte| byte.cast_signed().to_string()).collect::<Vec<_>>().join(" ");
        let token = (log.contains(&ada.token), log.contains(&bytes(ada.token.as_bytes())));
        assert_eq!(token, (shows_the_token, shows_the_token));
        let digest = (log.contains(&digest(&ada.token)), log.contains(&bytes(&Sha256::digest(&ada.token))));
        assert_eq!(digest, (!shows_the_token, !shows_the_token));
        api.database.batch(&format!("alter role tasks_api in database {} reset all", api.database.name)).await;
    }
}
