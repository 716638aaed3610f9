//! How the functions run: round trips, settings, logs, and a database that does not answer.
use crate::{
    api::{Api, SECRET, binary, get, patch, post, put, valid_request},
    contract::ROUTES,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use testing::{Lambda, Messages, Proxy, SERVICES, Secret, Side};

#[tokio::test]
async fn every_route_makes_one_round_trip_to_the_database() {
    let mut api = Api::start().await;
    let (network, messages) = Proxy::start_recording(SERVICES.pooler_port).await.expect("a free port");
    let port = network.port();
    api.set("DATABASE_URL", &api.database.plain_api_url(port));
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    let expired = api.database.sign_in(&ada.id, "-1 hour").await;

    let (mut requests, mut warm_up) = (Vec::new(), Vec::new());
    for route in ROUTES.iter().filter(|route| route.secret != Secret::None) {
        let task = api.database.number(&format!("with made as (insert into tasks (user_id, title) values ('{}', 'x') returning id) select id::bigint from made", ada.id)).await;
        let request = match route.secret {
            Secret::Database => get("/health?deep=true"),
            _ => valid_request(route, &ada, task),
        };
        warm_up.push(request.clone().bearer("unknown"));
        requests.push((route.function.clone(), request.clone().bearer(&ada.token)));
        requests.push((route.function.clone(), request.clone().cookie(&ada.token)));
        requests.push((route.function.clone(), request.clone().bearer(&bob.token)));
        requests.push((route.function.clone(), request.bearer(&expired)));
    }
    // Requests with every optional header and parameter.
    for (function, request) in [
        ("create-task", post("/api/tasks").header("idempotency-key", "k").json(json!({"title": "x"}))),
        ("create-task", post("/api/tasks").header("idempotency-key", "k").json(json!({"title": "x"}))),
        ("create-task", post("/api/tasks").header("idempotency-key", "k").json(json!({"title": "y"}))),
        ("update-task", put("/api/tasks/1").header("if-match", "\"5f\"").json(json!({"title": "x"}))),
        ("get-task", get("/api/tasks/1").header("if-none-match", "*")),
        ("batch-tasks", post("/api/tasks/batch").header("idempotency-key", "b").json(json!({"operations": [
            {"op": "create", "title": "x"}, {"op": "update", "id": 1, "title": "x", "if_match": "\"5f\""}, {"op": "delete", "id": 2},
        ]}))),
        ("batch-tasks", post("/api/tasks/batch").header("idempotency-key", "b").json(json!({"operations": [{"op": "delete", "id": 2}]}))),
        ("task-changes", get("/api/tasks/changes?limit=5").header("if-none-match", "*")),
        ("list-tasks", get("/api/tasks?sort=updated_at&q=x&status=pending&offset=5")),
    ] {
        requests.push((function.to_owned(), request.bearer(&ada.token)));
    }
    // Invalid requests, which still check the session before they are rejected.
    requests.push(("create-task".into(), post("/api/tasks").bearer(&ada.token).json(json!({"title": ""}))));
    requests.push(("update-task".into(), put("/api/tasks/x").bearer(&ada.token).text("nonsense")));
    requests.push(("complete-task".into(), patch("/api/tasks/99999999999/complete").bearer(&ada.token)));
    requests.push(("list-tasks".into(), get("/api/tasks?limit=0").bearer(&ada.token)));
    requests.push(("batch-tasks".into(), post("/api/tasks/batch").bearer(&ada.token).json(json!({"operations": []}))));
    requests.push(("task-changes".into(), get("/api/tasks/changes?cursor=x").bearer(&ada.token)));
    // Start each function, which connects to the database in Init.
    for request in warm_up {
        api.call(request).await;
    }
    messages.take();

    for (function, request) in requests {
        let status = api.call(request).await.status;
        let seen = messages.take();
        let letters =
            |side: Side| seen.iter().filter(|(from, _)| *from == side).map(|(_, letter)| *letter).collect::<String>();
        let client = letters(Side::Client);
        // One Sync (or Query) ends the client's only batch, and one ReadyForQuery is the only response to it.
        assert_eq!(client.matches(['S', 'Q']).count(), 1, "{function} answered {status} after {client}");
        assert!(client.ends_with('S'), "{function} answered {status} after {client}");
        assert_eq!(letters(Side::Server).matches('Z').count(), 1, "{function}");
        let first_answer = seen.iter().position(|(side, _)| *side == Side::Server).expect("an answer");
        assert!(
            seen.iter().skip(first_answer).all(|(side, _)| *side == Side::Server),
            "{function} sent more after a response from the server: {seen:?}"
        );
    }
}

#[tokio::test]
async fn a_made_up_bearer_costs_a_statement_unless_tokens_have_to_be_signed() {
    let made_up: Vec<String> = (0..100).map(|number| format!("made-up-{number}")).collect();
    for (require_signed, statements) in [("false", 100), ("true", 0)] {
        let mut api = Api::with_settings(&[("REQUIRE_SIGNED_TOKENS", require_signed)]).await;
        let (network, messages) = Proxy::start_recording(SERVICES.pooler_port).await.expect("a free port");
        api.set("DATABASE_URL", &api.database.plain_api_url(network.port()));
        assert_eq!(api.call(get("/api/tasks")).await.status, 401, "after Init, which has a statement of its own");
        messages.take();
        for token in &made_up {
            assert_eq!(api.call(get("/api/tasks").bearer(token)).await.status, 401);
        }
        let executed = messages.take().iter().filter(|(side, letter)| *side == Side::Client && *letter == 'E').count();
        assert_eq!(executed, statements, "REQUIRE_SIGNED_TOKENS={require_signed}");
    }
}

/// The messages of a client, as a text of their letters.
fn sent(messages: &Messages) -> String {
    messages.take().iter().filter(|(side, _)| *side == Side::Client).map(|(_, letter)| *letter).collect()
}

#[tokio::test]
async fn where_the_database_finds_sessions_by_token_nothing_is_prepared_and_a_call_is_one_round_trip() {
    // On Neon Auth's tables, and on a schema from before the digest.
    for schema in ["", "drop function public.session_lookup()"] {
        let mut api = Api::start().await;
        let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
        let (port, ada) = (network.port(), api.database.sign_up("ada").await);
        api.connect_as_to_neon(port);
        api.set("PREPARED_STATEMENTS", "true");
        api.database.batch(&format!("drop function public.caller(bytea); {schema}")).await;
        api.function("list-tasks").await.log_lines(1).await;
        messages.take();
        for _ in 0..3 {
            assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.status, 200, "{schema}");
            // Parse, Bind, Describe, Execute, Sync: an unnamed statement, in the first call as in the others.
            assert_eq!(sent(&messages), "PBDES", "{schema}");
        }
        assert_eq!(api.call(get("/api/tasks").bearer("unknown")).await.status, 401, "{schema}");
    }
}

#[tokio::test]
async fn a_running_function_outlives_a_return_to_the_older_schema() {
    for (prepared, first_call) in [("false", 2), ("true", 3)] {
        let mut api = Api::start().await;
        let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
        let (port, ada) = (network.port(), api.database.sign_up("ada").await);
        api.connect_as_to_neon(port);
        api.set("PREPARED_STATEMENTS", prepared);
        let list = || get("/api/tasks").bearer(&ada.token);
        assert_eq!(api.call(list()).await.status, 200);
        api.database.batch("drop function public.caller(bytea)").await;
        for round_trips in [first_call, 1, 1] {
            messages.take();
            assert_eq!(api.call(list()).await.status, 200);
            let sent = sent(&messages);
            assert_eq!(sent.matches('S').count(), round_trips, "{prepared}: {sent}");
        }
    }
}

#[tokio::test]
async fn a_start_without_the_index_of_the_sessions_is_an_error_and_a_metric_and_the_function_answers() {
    let mut api = Api::with_settings(&[("METRICS_NAMESPACE", "Tasks")]).await;
    let ada = api.database.sign_up("ada").await;
    for (schema, is_missing) in [("", false), ("drop index session_token_hash", true)] {
        api.database.batch(schema).await;
        assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.status, 200);
        assert_eq!(api.call(get("/api/tasks").bearer("unknown")).await.status, 401);
        let lines = api.take_function("list-tasks").log_lines(3 + usize::from(is_missing)).await;
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
        assert_eq!(errors.len(), usize::from(is_missing), "{lines:#?}");
        assert!(errors.iter().all(|line| line.to_string().contains("session_token_hash")), "{errors:#?}");
        let started = lines.iter().find(|line| line["message"] == "started").expect("a line of the start");
        let metrics = started["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().expect("metrics");
        assert_eq!(metrics.iter().any(|metric| metric["Name"] == "SessionIndexMissing"), is_missing, "{started}");
        assert_eq!(started["SessionIndexMissing"], if is_missing { json!(1) } else { Value::Null });
    }
}

#[tokio::test]
async fn before_better_auth_has_its_tables_nobody_is_signed_in_and_the_start_says_so() {
    let mut api = Api::start().await;
    // As 'migrate up --auth-tables none' leaves a database without them.
    api.database.batch("set migration_tools.auth_tables = 'none'; select migration_tools.install_caller()").await;
    assert_eq!(api.database.number("select count(to_regclass('public.session'))").await, 0);
    for request in [get("/api/tasks"), post("/api/tasks").json(json!({"title": "x"}))] {
        assert_eq!(api.call(request.bearer("a-token-of-nobody")).await.status, 401);
    }
    let lines = api.function("list-tasks").await.log_lines(3).await;
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let warnings: Vec<_> = lines.iter().filter(|line| line["level"] == "WARN").collect();
    assert_eq!(warnings.len(), 1, "{lines:#?}");
    assert!(warnings[0]["message"].as_str().is_some_and(|text| text.contains("Better Auth has no tables yet")));
}

#[tokio::test]
async fn a_missing_or_forged_credential_costs_no_round_trip() {
    let mut api = Api::start().await;
    let (network, messages) = Proxy::start_recording(SERVICES.pooler_port).await.expect("a free port");
    let port = network.port();
    api.set("DATABASE_URL", &api.database.plain_api_url(port));
    api.call(get("/api/tasks").bearer("unknown")).await;
    messages.take();
    for request in [get("/api/tasks"), get("/api/tasks").bearer("forged.signature")] {
        assert_eq!(api.call(request).await.status, 401);
    }
    assert_eq!(messages.take(), []);
}

#[tokio::test]
async fn an_invalid_setting_ends_the_process_with_one_sentence_that_names_it() {
    let api = Api::start().await;
    let url = api.database.api_url();
    let good = [("DATABASE_URL", &*url), ("BETTER_AUTH_SECRET", SECRET)];
    let secret = "s3cret";
    for (name, value) in [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "s3cret"),
        ("DATABASE_URL", "host=localhost user=a password=s3cret"),
        ("DATABASE_URL", "mysql://a:s3cret@db.example.com/tasks"),
        ("DATABASE_URL", "postgresql://a:s3@cret@db.example.com/tasks"),
        ("DATABASE_URL", "postgresql://a:s3cret@db.example.com"),
        ("DATABASE_URL", "postgresql://a:s3cret@/tasks"),
        ("DATABASE_URL", "postgresql://a:s3cret@db.example.com:s3cret/tasks"),
        ("DATABASE_URL", "postgresql://a:s3cret@db.example.com/tasks?sslmode=s3cret"),
        ("DATABASE_URL", "postgresql://a:s3cret@db.example.com/tasks?options=-c%20statement_timeout%3D1"),
        ("DATABASE_URL", "postgresql://a:s3cret@db.example.com/tasks?sslrootcert=/nowhere/root.crt"),
        ("DATABASE_URL", "postgresql://a:s3cret@db.example.com/tasks?hostaddr=s3cret"),
        ("DATABASE_URL", "postgresql://a:********@db.example.com/tasks"),
        ("BETTER_AUTH_SECRET", "better-auth-secret-12345678901234567890"),
        ("BETTER_AUTH_SECRET", "s3cret"),
        ("BETTER_AUTH_SECRETS", "2:s3cret,1:s3cret"),
        ("BETTER_AUTH_SECRETS", "s3cret,s3cret"),
        ("BETTER_AUTH_SECRETS", "1:s3cret,1:s3cret"),
        ("BETTER_AUTH_URL", "s3cret"),
        ("BETTER_AUTH_COOKIE_PREFIX", "s3cret;"),
        ("TRUSTED_ORIGINS", "https://*.s3cret.com"),
        ("TRUSTED_ORIGINS", "s3cret"),
        ("REQUIRE_SIGNED_TOKENS", "s3cret"),
        ("PREPARED_STATEMENTS", "s3cret"),
        ("LOG_LEVEL", "s3cret"),
        ("AWS_LAMBDA_MAX_CONCURRENCY", "s3cret"),
    ] {
        let settings = good.into_iter().filter(|(known, _)| *known != name).chain([(name, value)]);
        let settings: Vec<_> = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (code, log) = Lambda::start(&binary("list-tasks"), &settings).await.ended().await;
        assert_eq!((code, log.len()), (Some(1), 1), "{name}={value}: {log:?}");
        let line: Value = serde_json::from_str(&log[0]).expect("a JSON line");
        let cause = line["cause"].as_str().expect("a cause");
        assert!(cause.starts_with(name), "{name}={value}: {cause}");
        assert!(!log[0].contains(secret) && !log[0].contains(SECRET), "{}", log[0]);
    }
}

#[tokio::test]
async fn a_request_is_logged_in_one_line_without_a_secret() {
    let mut api = Api::with_settings(&[("LOG_LEVEL", "trace")]).await;
    let ada = api.database.sign_up("ada").await;
    let body = json!({"title": "a-private-title"});
    let created = api
        .call(post(&format!("/api/{}/tasks?token={}", ada.id, ada.token)).cookie(&ada.token).json(body.clone()))
        .await;
    api.call(post("/api/tasks").bearer(&ada.token).json(body)).await;
    api.call(post("/api/tasks").bearer(&ada.token).text("{\"title\":\"a-private-title")).await;
    api.call(post("/api/tasks").bearer("an-unknown-token").json(json!({}))).await;

    let lines = api.function("create-task").await.log_lines(5).await;
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for secret in [&ada.token, SECRET, &SERVICES.api_password, "a-private-title", "an-unknown-token", "session_token"] {
        assert!(lines.iter().all(|line| !line.contains(secret)), "{secret} is in the log: {lines:#?}");
    }
    let mut lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(lines.remove(0)["message"], "started");
    assert_eq!(lines[0]["request_id"], created.header("x-request-id").expect("an id"));
    assert_eq!(lines[0]["gateway_request_id"], "gateway-request");
    assert_eq!(lines[0]["route"], "POST /api/{user_id}/tasks");
    assert_eq!(lines[0]["trace_id"], "1-5759e988-bd862e3fe1be46a994272793");
    assert_eq!((&lines[0]["user_id"], &lines[0]["task_id"]), (&json!(ada.id), &created.body["id"]));
    let seen: Vec<_> = lines.iter().map(|line| (line["status"].as_u64(), line["ColdStart"].as_u64())).collect();
    assert_eq!(seen, [(Some(201), Some(1)), (Some(201), Some(0)), (Some(400), Some(0)), (Some(401), Some(0))]);
}

#[tokio::test]
async fn each_line_says_who_did_what_with_which_task() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    for route in ROUTES.iter().filter(|route| route.needs_session()) {
        let task = api.make_task(&ada, "Ada's").await;
        drop(api.take_function("create-task"));
        for (caller, is_hers) in [(&ada, true), (&bob, false)] {
            let answer = api.call(valid_request(route, &ada, task).bearer(&caller.token)).await;
            let lines = api.take_function(&route.function).log_lines(2).await;
            let line: Value = serde_json::from_str(lines.last().expect("the request's line")).expect("a JSON line");
            assert_eq!(line["user_id"], caller.id, "{route:?}: {line}");
            let is_forbidden = route.names_user() && !is_hers;
            assert_eq!(line["security"], if is_forbidden { json!("authz_fail") } else { Value::Null }, "{line}");
            let names_task = route.path.contains("{id}");
            let creates = route.method == "POST" && answer.status == 201;
            let expected = match (names_task, creates) {
                (true, _) => json!(task),
                (_, true) => answer.body["id"].clone(),
                _ => Value::Null,
            };
            assert_eq!(line["task_id"], expected, "{route:?}: {line}");
        }
    }
}

#[tokio::test]
async fn an_unreachable_database_is_a_503_until_it_returns() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    // Below the ephemeral ports, so that no outgoing connection takes it before the proxy does.
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (9_500..10_000).find(is_free).expect("a free port");
    api.set("DATABASE_URL", &api.database.plain_api_url(port));
    for request in [
        get("/health?deep=true"),
        get("/api/tasks").bearer(&ada.token),
        post("/api/tasks").bearer(&ada.token).json(json!({"title": "x"})),
    ] {
        let answer = api.call(request).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert_eq!(answer.body["detail"], "The database does not answer. Try again.");
    }
    let log = api.function("list-tasks").await.log_lines(2).await.join("\n");
    assert!(log.contains("onnection refused") && !log.contains(&SERVICES.api_password), "{log}");

    let _network = Proxy::start_on(port, SERVICES.pooler_port).await.expect("the port");
    assert_eq!(api.call(get("/health?deep=true")).await.status, 200);
    assert_eq!(api.call(get("/api/tasks").bearer(&ada.token)).await.body, json!([]));
}

#[tokio::test]
async fn a_server_that_cannot_show_a_good_certificate_is_not_spoken_to() {
    let mut api = Api::start().await;
    // The system's roots do not include the test server's certificate.
    let url = api.database.api_url();
    let (url, _) = url.split_once("&sslrootcert").expect("the usual URL");
    for sslmode in ["require", "verify-ca", "verify-full"] {
        let mut api = Api::with_settings(&[("DATABASE_URL", &url.replace("verify-full", sslmode))]).await;
        assert_eq!(api.call(get("/health?deep=true")).await.status, 503, "{sslmode}");
    }
    assert_eq!(api.call(get("/health?deep=true")).await.status, 200, "with the right root, it connects");
}

#[tokio::test]
async fn ssl_cert_file_is_used_if_the_url_names_no_root() {
    let api = Api::start().await;
    let url = api.database.api_url();
    let (url, _) = url.split_once("&sslrootcert").expect("the usual URL");
    for (file, status) in [(&*SERVICES.certificate, 200), ("/dev/null", 503)] {
        let mut api = Api::with_settings(&[("DATABASE_URL", url), ("SSL_CERT_FILE", file)]).await;
        assert_eq!(api.call(get("/health?deep=true")).await.status, status, "{file}");
    }
}

#[tokio::test]
async fn a_statement_that_waits_too_long_is_a_503_and_the_next_one_works() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let id = api.make_task(&ada, "kept").await;
    api.database.sql("begin", &[]).await;
    api.database.sql("select from tasks for update", &[]).await;
    let update = || put(&format!("/api/tasks/{id}")).bearer(&ada.token).json(json!({"title": "changed"}));
    assert_eq!(api.call(update()).await.status, 503);
    api.database.sql("rollback", &[]).await;
    assert_eq!(api.call(get(&format!("/api/tasks/{id}")).bearer(&ada.token)).await.body["title"], "kept");
    assert_eq!(api.call(update()).await.status, 200);
}

#[tokio::test]
async fn an_abandoned_statement_is_not_executed_later_and_cancels_no_other() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let (first, second) = (api.make_task(&ada, "kept").await, api.make_task(&ada, "kept").await);
    // Let the server wait longer than the function does, as if the statement had been queued in the pooler first.
    let timeout = format!("alter role tasks_api in database {} set statement_timeout = '60s'", api.database.name);
    api.database.sql(&timeout, &[]).await;
    api.database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tasks_api' and datname = current_database()", &[]).await;
    api.database.sql("begin", &[]).await;
    api.database.sql("select from tasks for update", &[]).await;
    let change = json!({"title": "changed"});
    let abandoned = put(&format!("/api/tasks/{first}")).bearer(&ada.token).json(change.clone()).routed_event();
    let waiting = patch(&format!("/api/tasks/{second}")).bearer(&ada.token).json(change).routed_event();

    api.function("update-task").await.send(abandoned).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    api.function("patch-task").await.send(waiting).await;
    assert_eq!(api.function("update-task").await.receive().await["statusCode"], 503);
    api.database.sql("rollback", &[]).await;
    assert_eq!(api.function("patch-task").await.receive().await["statusCode"], 200);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let titles = api.database.sql("select title from tasks order by id", &[]).await;
    assert_eq!(titles.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["kept", "changed"]);
}

#[tokio::test]
async fn a_connection_that_was_lost_while_idle_is_not_noticed_by_the_next_call() {
    let mut api = Api::start().await;
    api.set("DATABASE_URL", &api.database.plain_api_url(SERVICES.postgres_port));
    let ada = api.database.sign_up("ada").await;
    for method in ["GET", "POST"] {
        let request =
            || if method == "GET" { get("/api/tasks") } else { post("/api/tasks").json(json!({"title": "x"})) };
        assert!(api.call(request().bearer(&ada.token)).await.status < 300);
        api.database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tasks_api' and datname = current_database()", &[]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let answer = api.call(request().bearer(&ada.token)).await;
        assert!(answer.status < 300, "{method}: {answer:?}");
    }
}

#[tokio::test]
async fn several_requests_are_served_at_once_where_lambda_allows_it() {
    let mut api = Api::with_settings(&[("AWS_LAMBDA_MAX_CONCURRENCY", "2")]).await;
    let ada = api.database.sign_up("ada").await;
    let (locked, free) = (api.make_task(&ada, "locked").await, api.make_task(&ada, "free").await);
    api.database.sql("begin", &[]).await;
    api.database.sql(&format!("select from tasks where id = {locked} for update"), &[]).await;

    // The first waits for the lock, so the second finishes first.
    let update =
        |id: i64| put(&format!("/api/tasks/{id}")).bearer(&ada.token).json(json!({"title": "changed"})).routed_event();
    let function = api.function("update-task").await;
    function.send(update(locked)).await;
    function.send(update(free)).await;
    let first = function.receive().await;
    assert!(first["body"].as_str().expect("a body").contains(&format!("\"id\":{free},")), "{first}");
    api.database.sql("commit", &[]).await;
    let second = api.function("update-task").await.receive().await;
    assert!(second["body"].as_str().expect("a body").contains(&format!("\"id\":{locked},")), "{second}");
}

#[tokio::test]
async fn each_request_is_measured_in_cloudwatchs_embedded_metric_format() {
    let mut api =
        Api::with_settings(&[("METRICS_NAMESPACE", "Tasks"), ("SERVICE_NAME", "staging"), ("LOG_LEVEL", "off")]).await;
    let ada = api.database.sign_up("ada").await;
    let bob = api.database.sign_up("bob").await;
    for request in [
        get("/api/tasks").bearer(&ada.token),
        get("/api/tasks"),
        get("/api/tasks").bearer("forged.signature"),
        get("/api/tasks").bearer("unknown"),
        get(&format!("/api/{}/tasks", ada.id)).bearer(&bob.token),
        get("/api/tasks?limit=0").bearer(&ada.token),
    ] {
        api.call(request).await;
    }
    let lines = api.function("list-tasks").await.log_lines(7).await;
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert!(lines[0]["ConnectTime"].as_f64().is_some_and(|time| time > 0.0), "{}", lines[0]);
    for line in &lines {
        // The format requires a namespace, dimensions, and metrics that name fields of the same line.
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!((&directive["Namespace"], &directive["Dimensions"]), (&json!("Tasks"), &json!([["Service"]])));
        assert!(line["_aws"]["Timestamp"].as_u64().is_some_and(|at| at > 1_700_000_000_000), "{line}");
        assert_eq!((&line["Service"], &line["function"]), (&json!("staging"), &json!("list-tasks")));
        for metric in directive["Metrics"].as_array().expect("metrics") {
            let name = metric["Name"].as_str().expect("a name");
            assert!(line[name].is_number(), "{name} is not a number: {line}");
        }
    }
    let value = |line: usize, name: &str| lines[line][name].as_f64();
    assert!(value(1, "Latency") >= value(1, "DatabaseTime") && value(1, "DatabaseTime") > Some(0.0), "{}", lines[1]);
    assert_eq!((value(1, "ColdStart"), value(2, "ColdStart")), (Some(1.0), Some(0.0)));
    assert_eq!(
        (value(1, "ClientErrors"), value(6, "ClientErrors"), value(6, "Faults")),
        (Some(0.0), Some(1.0), Some(0.0))
    );
    let refusals: Vec<_> = (1..=6).map(|line| value(line, "Refusals")).collect();
    assert_eq!(refusals, [None, None, Some(1.0), Some(1.0), Some(1.0), None]);
    for (line, kind) in [(2, "AuthMissing"), (3, "AuthBadSignature"), (4, "AuthNoSession"), (5, "AuthForbidden")] {
        let kinds: Vec<_> =
            lines[line].as_object().expect("fields").keys().filter(|key| key.starts_with("Auth")).collect();
        assert_eq!(kinds, [kind]);
    }
}

#[tokio::test]
async fn a_database_failure_is_counted_and_its_cause_is_logged() {
    let mut api = Api::start().await;
    let url = api.database.plain_api_url(1);
    api.set("DATABASE_URL", &url);
    api.call(get("/health?deep=true")).await;
    let lines = api.function("health").await.log_lines(2).await;
    let line: Value = serde_json::from_str(&lines[1]).expect("a JSON line");
    assert_eq!((&line["level"], &line["DatabaseFailures"], &line["Faults"]), (&json!("ERROR"), &json!(1), &json!(1)));
    assert_eq!((&line["status"], &line["Retries"]), (&json!(503), &json!(1)));
    assert!(line["cause"].as_str().is_some_and(|cause| cause.contains("onnection refused")), "{line}");
}

#[tokio::test]
async fn sigterm_closes_the_connection_to_the_database() {
    let mut api = Api::start().await;
    let url = api.database.plain_api_url(SERVICES.postgres_port);
    api.set("DATABASE_URL", &url);
    assert_eq!(api.call(get("/health?deep=true")).await.status, 200);
    let connections =
        "select count(*) from pg_stat_activity where usename = 'tasks_api' and datname = current_database()";
    assert_eq!(api.database.number(connections).await, 1);
    let function = api.take_function("health");
    function.terminate();
    assert_eq!(function.ended().await.0, Some(0));
    for _ in 0..100 {
        if api.database.number(connections).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the connection is still open");
}

#[tokio::test]
async fn an_invalid_event_fails_the_invocation_but_not_the_process() {
    let mut api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let good = get("/api/session").bearer(&ada.token).routed_event().to_string();
    let strange: [Vec<u8>; 8] = [
        Vec::new(),
        b"null".to_vec(),
        b"{}".to_vec(),
        good.as_bytes()[..good.len() / 2].to_vec(),
        [&b"{\"\xff\":1,"[..], &good.as_bytes()[1..]].concat(),
        "[".repeat(100_000).into_bytes(),
        good.replace("\"GET\"", "\"G T\"").into_bytes(),
        good.replace(&format!("\"Bearer {}\"", ada.token), "[\"Bearer\"]").into_bytes(),
    ];
    for event in strange {
        let text = String::from_utf8_lossy(&event).chars().take(100).collect::<String>();
        let function = api.function("session").await;
        // API Gateway never sends such an event. Lambda counts the failure as a function error, which is correct.
        let failure = function.try_invoke_bytes(event).await.expect_err(&text);
        let failure = failure["error"].as_str().expect("the error that the runtime reports").to_owned();
        assert!(failure.contains("errorType") && !failure.contains("panic"), "{text}: {failure}");
        assert!(!failure.contains(&ada.token), "{text}: {failure}");
        assert_eq!(api.call(get("/api/session").bearer(&ada.token)).await.status, 200, "after {text}");
    }
}

#[tokio::test]
async fn health_asks_the_database_only_if_it_is_told_to() {
    let mut api = Api::start().await;
    let url = api.database.plain_api_url(1);
    api.set("DATABASE_URL", &url);
    for (query, status) in
        [("", 200), ("?deep=false", 200), ("?deep=true", 503), ("?deep=yes", 422), ("?deep=yes&deep=false", 200)]
    {
        assert_eq!(api.call(get(&format!("/health{query}"))).await.status, status, "{query}");
    }
    let lines = api.function("health").await.log_lines(1).await;
    assert!(
        lines[0].contains("InitTime"),
        "nothing is tried in Init, so no warning comes before this line: {}",
        lines[0]
    );
}

#[tokio::test]
async fn behind_the_edge_each_function_wants_its_key_before_anything_else() {
    let digest: String = Sha256::digest("key-of-the-edge").iter().map(|byte| format!("{byte:02x}")).collect();
    let mut api = Api::with_settings(&[("EDGE_KEY_SHA256", &digest)]).await;
    let ada = api.database.sign_up("ada").await;
    for (path, status) in [("/api/tasks", 200), ("/health?deep=true", 200), ("/docs", 200)] {
        let request = get(path).bearer(&ada.token);
        for refused in [request.clone(), request.clone().header("x-edge-key", &digest)] {
            let answer = api.call_undeclared(refused).await;
            assert_eq!((answer.status, &answer.body["title"]), (403, &json!("Forbidden")), "{path}");
        }
        assert_eq!(api.call(request.header("x-edge-key", "key-of-the-edge")).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn the_reference_can_be_switched_off() {
    let mut api = Api::with_settings(&[("SERVE_DOCS", "false")]).await;
    for path in ["/docs", "/docs/init.js", "/openapi.json"] {
        assert_eq!(api.call_undeclared(get(path)).await.status, 404, "{path}");
    }
}
