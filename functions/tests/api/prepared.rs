//! Prepared statements: what they cost in round trips, and what happens where a pooler does not track their names. Then a
//! process can find another one's statement under a name of its own. `cargo xtask test versions` runs this behind each kind of
//! pooler.
use crate::api::{Answer, Api, Request, binary, delete, get, patch, post, put};
use serde_json::{Value, json};
use testing::{Client, Lambda, Messages, Proxy, SERVICES, Side, SimpleQueryMessage, User};

/// Round trips of Init without TLS: the start and the password in 3, and one statement.
const INIT_ROUND_TRIPS: usize = 4;

/// Starts the API with prepared statements, connected to `port` without TLS.
async fn start_preparing(port: u16) -> Api {
    let mut api = Api::with_settings(&[("PREPARED_STATEMENTS", "true")]).await;
    api.set("DATABASE_URL", &api.database.plain_api_url(port));
    api
}

/// The recorded messages since the last call, as a text: the client's as they are, and the server's in brackets.
fn conversation(messages: &Messages) -> String {
    let mut text = String::new();
    let mut last = Side::Client;
    for (side, letter) in messages.take() {
        match (last, side) {
            (Side::Client, Side::Server) => text.push('['),
            (Side::Server, Side::Client) => text.push(']'),
            _ => {}
        }
        text.push(letter);
        last = side;
    }
    if last == Side::Server { text + "]" } else { text }
}

/// What the client sent, and in how many round trips.
pub fn sent(messages: &Messages) -> (String, usize) {
    let text = conversation(messages);
    let round_trips = text.matches('[').count();
    let client = text.split('[').map(|part| part.rsplit(']').next().unwrap_or_default());
    (client.collect(), round_trips)
}

/// A call of each function that has a caller, about the task.
fn calls(user: &User, task: i64) -> Vec<(&'static str, Request)> {
    let title = json!({"title": "x"});
    let calls = [
        ("session", get("/api/session")),
        ("list-tasks", get("/api/tasks")),
        ("list-tasks", get("/api/tasks?limit=50")),
        ("create-task", post("/api/tasks").json(title.clone())),
        ("create-task", post("/api/tasks").header("idempotency-key", "once").json(title.clone())),
        ("get-task", get(&format!("/api/tasks/{task}"))),
        ("update-task", put(&format!("/api/tasks/{task}")).json(title.clone())),
        (
            "patch-task",
            patch(&format!("/api/tasks/{task}"))
                .header("content-type", "application/merge-patch+json")
                .text(&title.to_string()),
        ),
        ("complete-task", patch(&format!("/api/tasks/{task}/complete"))),
        ("clear-completed", delete("/api/tasks?status=completed")),
        ("batch-tasks", post("/api/tasks/batch").json(json!({"operations": [{"op": "create", "title": "x"}]}))),
        ("delete-task", delete(&format!("/api/tasks/{task}"))),
    ];
    calls.into_iter().map(|(function, request)| (function, request.bearer(&user.token))).collect()
}

#[tokio::test]
async fn init_prepares_what_the_function_runs_without_a_round_trip_and_each_call_from_the_first_one_is_one() {
    let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
    let mut inits = Vec::new();
    for prepared in ["false", "true"] {
        let mut api = start_preparing(network.port()).await;
        api.set("PREPARED_STATEMENTS", prepared);
        let ada = api.database.sign_up("ada").await;
        let task = api.make_task(&ada, "a task").await;
        drop(api.take_function("create-task"));
        for (function, request) in calls(&ada, task) {
            messages.take();
            drop(api.function(function).await.log_lines(1).await);
            let (init, round_trips) = sent(&messages);
            if !init.is_empty() {
                inits.push((function, prepared, round_trips));
                // Parse, Describe, Sync for each statement and credential.
                assert_eq!(init.contains("PDSPDS"), prepared == "true", "{function}: {init}");
            }
            for _ in 0..2 {
                let status = api.call(request.clone()).await.status;
                let expected = if prepared == "true" { "BES" } else { "PBDES" };
                assert_eq!(sent(&messages), (expected.to_owned(), 1), "{function} answered {status}");
            }
        }
    }
    assert_eq!(inits.len(), 20, "{inits:?}");
    let is_usual = |(_, _, round_trips): &(&str, &str, usize)| *round_trips == INIT_ROUND_TRIPS;
    assert!(
        inits.iter().all(is_usual),
        "Init takes {INIT_ROUND_TRIPS} round trips, with prepared statements too: {inits:?}"
    );
}

#[tokio::test]
async fn after_a_lost_connection_the_first_call_is_one_round_trip_and_prepares_again() {
    let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
    let mut api = start_preparing(network.port()).await;
    let ada = api.database.sign_up("ada").await;
    let list = || get("/api/tasks").bearer(&ada.token);
    assert_eq!(api.call(list()).await.status, 200);
    network.close_all().await;
    messages.take();
    assert_eq!(api.call(list()).await.status, 200);
    let text = conversation(&messages);
    // The statement runs unnamed. Those of the function follow before its answer.
    let prepared = "PDS".repeat(8);
    assert!(text.contains(&format!("]PBDES{prepared}[")), "{text}");
    for path in ["/api/tasks", "/api/tasks?status=pending"] {
        assert_eq!(api.call(get(path).bearer(&ada.token)).await.status, 200);
        let mut second = sent(&messages);
        // On a busy machine, the call may not have waited for the last of them. Then its statement is prepared now.
        if second == ("PBDESPDS".to_owned(), 1) {
            assert_eq!(api.call(get(path).bearer(&ada.token)).await.status, 200);
            second = sent(&messages);
        }
        assert_eq!(second, ("BES".to_owned(), 1), "{path}");
    }
    // A list that is planned for its cursor, order or text is not prepared.
    for path in ["/api/tasks?sort=title", "/api/tasks?q=x", "/api/tasks?offset=1"] {
        assert_eq!(api.call(get(path).bearer(&ada.token)).await.status, 200);
        assert_eq!(sent(&messages), ("PBDES".to_owned(), 1), "{path}");
    }
}

#[tokio::test]
async fn nothing_is_sent_behind_a_write_because_a_pooler_could_deliver_it_after_the_503() {
    let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
    let mut api = start_preparing(network.port()).await;
    let ada = api.database.sign_up("ada").await;
    let title = json!({"title": "x"});
    let create = || post("/api/tasks").bearer(&ada.token).json(title.clone());
    for request in [create(), create().header("idempotency-key", "once")] {
        assert_eq!(api.call(request.clone()).await.status, 201);
        network.close_all().await;
        messages.take();
        assert_eq!(api.call(request.clone()).await.status, 201);
        let text = conversation(&messages);
        let prepared = "PDS".repeat(4);
        let (_, after) = text.split_once("]PBDES[").unwrap_or_else(|| panic!("the write is not alone: {text}"));
        assert!(after.contains(&format!("]{prepared}[")), "prepared after its answer: {text}");
        assert_eq!(api.call(request).await.status, 201);
        assert_eq!(sent(&messages), ("BES".to_owned(), 1));
    }
}

#[tokio::test]
async fn without_a_setting_statements_are_prepared_for_neons_hosts_alone() {
    let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
    for (is_neon, expected) in [(false, "PBDES"), (true, "BES")] {
        let mut api = Api::start().await;
        let ada = api.database.sign_up("ada").await;
        if is_neon {
            api.connect_as_to_neon(network.port());
        } else {
            api.set("DATABASE_URL", &api.database.plain_api_url(network.port()));
        }
        drop(api.function("session").await.log_lines(1).await);
        messages.take();
        assert_eq!(api.call(get("/api/session").bearer(&ada.token)).await.status, 200);
        assert_eq!(sent(&messages), (expected.to_owned(), 1));
    }
}

/// The lines in which a function says that it prepares nothing any more.
async fn warnings(function: &Lambda) -> Vec<Value> {
    let lines = function.log_lines(2).await;
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).expect("a JSON line"));
    lines.filter(|line| line["message"].as_str().is_some_and(|it| it.contains("no longer prepared"))).collect()
}

#[tokio::test]
async fn a_migration_during_a_functions_life_costs_one_round_trip_more_at_most() {
    let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
    for (function, make) in [("list-tasks", false), ("create-task", true)] {
        let mut api = start_preparing(network.port()).await;
        let ada = api.database.sign_up("ada").await;
        let request =
            || if make { post("/api/tasks").json(json!({"title": "x"})) } else { get("/api/tasks") }.bearer(&ada.token);
        let first = api.call(request()).await.status;
        api.database.batch("alter table tasks add column extra text default 'x'").await;
        messages.take();
        assert_eq!(api.call(request()).await.status, first);
        assert_eq!(sent(&messages), ("BES".to_owned(), 1), "a column that the statement does not name");
        assert_eq!(warnings(api.function(function).await).await, Vec::<Value>::new());

        api.database.batch("alter table tasks alter column description type varchar(20000)").await;
        assert_eq!(api.call(request()).await.status, first);
        assert_eq!(sent(&messages), ("BESPBDES".to_owned(), 2));
        assert_eq!(api.call(request()).await.status, first);
        assert_eq!(sent(&messages), ("PBDES".to_owned(), 1));
        let warnings = warnings(api.function(function).await).await;
        assert_eq!(warnings.len(), 1);
        // "cached plan must not change result type"
        assert_eq!((&warnings[0]["sqlstate"], &warnings[0]["level"]), (&json!("0A000"), &json!("WARN")));
        if make {
            assert_eq!(api.database.number("select count(*) from tasks").await, 4, "each was created once");
        }
    }
}

/// A client of the pooler, which sends its statements on the server connection that was used last.
async fn pooler_client(api: &Api) -> Client {
    api.database.connect_as_api(SERVICES.pooler_port).await.expect("the API's role can connect")
}

/// Whether the pooler gives a client what another one has prepared, under the name that the other one chose.
async fn shares_names(api: &Api) -> bool {
    let (one, other) = (pooler_client(api).await, pooler_client(api).await);
    let _probe = one.prepare("select 1 as probe").await.expect("a statement");
    let find =
        "select from pg_prepared_statements where statement = 'select 1 as probe' and name not like 'PGBOUNCER%'";
    let found = other.simple_query(find).await.expect("an answer");
    found.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_)))
}

#[tokio::test]
async fn behind_every_pooler_a_call_is_answered_and_one_round_trip_where_names_are_not_shared() {
    let (network, messages) = Proxy::start_recording(SERVICES.pooler_port).await.expect("a free port");
    let mut api = start_preparing(network.port()).await;
    let is_shared = shares_names(&api).await;
    let ada = api.database.sign_up("ada").await;
    for function in ["session", "list-tasks"] {
        drop(api.function(function).await.log_lines(1).await);
    }
    messages.take();
    for _ in 0..3 {
        for path in ["/api/session", "/api/tasks", "/api/tasks?limit=5"] {
            assert_eq!(api.call(get(path).bearer(&ada.token)).await.status, 200);
            let (text, round_trips) = sent(&messages);
            if !is_shared {
                assert_eq!((&*text, round_trips), ("BES", 1), "{path}");
            }
            // Refused, and once more unnamed.
            assert!(["BES", "PBDES", "BESPBDES"].contains(&&*text), "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn another_functions_statement_under_the_name_does_nothing() {
    // Ada's and Bob's tasks that are completed. One function reads, the other one deletes them.
    for reads in [true, false] {
        let mut api = start_preparing(SERVICES.pooler_port).await;
        let is_shared = shares_names(&api).await;
        let ada = api.database.sign_up("ada").await;
        let add = format!(
            "insert into tasks (user_id, title, completed) select '{}', 'x', true from generate_series(1, 5)",
            ada.id
        );
        api.database.batch(&add).await;
        let (first, second) = if reads { ("session", "clear-completed") } else { ("clear-completed", "session") };
        drop(api.function(first).await.log_lines(1).await);
        // While the first function's server connection is taken, the second one prepares its statements under the same names
        // on the other connection, and then the first one executes there.
        let taken = pooler_client(&api).await;
        taken.batch_execute("begin").await.expect("a transaction");
        drop(api.function(second).await.log_lines(1).await);
        let request = if reads { get("/api/session") } else { delete("/api/tasks?status=completed") };
        let answer = api.call(request.bearer(&ada.token)).await;
        taken.batch_execute("rollback").await.expect("the transaction");
        assert_eq!(answer.status, 200, "{answer:?}");
        if reads {
            assert_eq!(answer.body["user_id"], ada.id, "{answer:?}");
        } else {
            assert_eq!(answer.body, json!({"deleted": 5}));
        }
        assert_eq!(api.database.number("select count(*) from tasks").await, if reads { 5 } else { 0 });
        let warnings = warnings(api.function(first).await).await;
        assert_eq!(warnings.len(), usize::from(is_shared), "{warnings:?}");
        if is_shared {
            assert_eq!(warnings[0]["sqlstate"], "22P02");
            assert_eq!(warnings[0]["cause"], "the connection had another function's statement under the name");
        }
    }
}

#[tokio::test]
async fn any_other_statement_under_the_name_is_refused_and_the_call_runs_once() {
    let caller = "select s.user_id from public.caller($1) s";
    for (forged, sqlstates) in [
        // None, and one with fewer parameters.
        (String::new(), &["26000"][..]),
        ("prepare s0 as select 1".to_owned(), &["08P01"]),
        // The parameters' number fits, and a value's type does not.
        (format!("prepare s0 (bytea, text, int4, text, int8, int8) as {caller}"), &["22", "54", "08P01"]),
        ("prepare s0 (text[], text, text, text, int8, int8) as select 1".to_owned(), &["22", "54", "08P01"]),
        ("prepare s0 (bytea, text, text, text, int4, int8) as select 1".to_owned(), &["22", "54", "08P01"]),
    ] {
        let mut api = start_preparing(SERVICES.pooler_port).await;
        let is_shared = shares_names(&api).await;
        let ada = api.database.sign_up("ada").await;
        drop(api.function("create-task").await.log_lines(1).await);
        pooler_client(&api).await.batch_execute(&format!("deallocate all; {forged}")).await.expect("a statement");
        for count in [1, 2] {
            let made = api.call(post("/api/tasks").bearer(&ada.token).json(json!({"title": "x"}))).await;
            assert_eq!(made.status, 201, "{forged}: {made:?}");
            assert_eq!(api.database.number("select count(*) from tasks").await, count, "{forged}");
        }
        let warnings = warnings(api.function("create-task").await).await;
        assert_eq!(warnings.len(), usize::from(is_shared), "{forged}: {warnings:?}");
        let is_expected = |sqlstate: &str| sqlstates.iter().any(|it| sqlstate.starts_with(it));
        assert!(warnings.iter().all(|it| it["sqlstate"].as_str().is_some_and(is_expected)), "{forged}: {warnings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_that_share_server_connections_answer_right_and_write_once() {
    const CALLS: i64 = 40;
    let api = start_preparing(SERVICES.pooler_port).await;
    let (ada, bob) = (api.database.sign_up("ada").await, api.database.sign_up("bob").await);
    let add = format!(
        "insert into tasks (user_id, title, completed) select '{}', 'x', true from generate_series(1, 5)",
        ada.id
    );
    api.database.batch(&add).await;
    let mut running = Vec::new();
    // Two processes of each. Only Bob clears, and he has nothing to clear; each of Ada's creations counts.
    for (function, request) in [
        ("session", get("/api/session").bearer(&ada.token)),
        ("clear-completed", delete("/api/tasks?status=completed").bearer(&bob.token)),
        ("list-tasks", get("/api/tasks?limit=3").bearer(&ada.token)),
        ("create-task", post("/api/tasks").bearer(&ada.token).json(json!({"title": "y"}))),
    ] {
        for _ in 0..2 {
            let settings = api.settings().to_vec();
            let event = request.routed_event();
            running.push(tokio::spawn(async move {
                let mut lambda = Lambda::start(&binary(function), &settings).await;
                let mut answers = Vec::new();
                for _ in 0..CALLS {
                    answers.push(Answer::new(&lambda.invoke(event.clone()).await));
                }
                (function, answers)
            }));
        }
    }
    for it in running {
        let (function, answers) = it.await.expect("no panic");
        for answer in answers {
            match function {
                "session" => assert_eq!((answer.status, &answer.body["user_id"]), (200, &json!(ada.id)), "{answer:?}"),
                "clear-completed" => {
                    assert_eq!((answer.status, &answer.body), (200, &json!({"deleted": 0})), "{answer:?}")
                }
                "list-tasks" => {
                    let tasks = answer.body["tasks"].as_array().or(answer.body.as_array()).expect("tasks");
                    assert!(answer.status == 200 && tasks.len() == 3, "{answer:?}");
                    assert!(tasks.iter().all(|task| task["user_id"] == ada.id), "{answer:?}");
                }
                _ => assert_eq!((answer.status, &answer.body["title"]), (201, &json!("y")), "{answer:?}"),
            }
        }
    }
    let count = format!("select count(*) from tasks where user_id = '{}'", ada.id);
    assert_eq!(api.database.number(&count).await, 5 + 2 * CALLS, "a lost or doubled write");
}
