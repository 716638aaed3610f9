//! Settings from Secrets Manager, through the extension's local port, and what happens when they change.
use crate::api::{Api, SECRET, binary, get, post, session_cookie};
use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    routing::get as route_get,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use testing::{Lambda, SERVICES};
use tokio::net::TcpListener;

const SESSION_TOKEN: &str = "the-session-token-of-the-functions-role";
const SECRET_ID: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:task-api/api-AbCdEf";

/// The extension as its documentation has it: one route and two things that it asks of a request. The secret is what Secrets
/// Manager would give.
#[derive(Clone, Default)]
struct Extension {
    secret: Arc<Mutex<Value>>,
    asked: Arc<Mutex<u32>>,
    /// How many requests it refuses first, because it is still starting.
    not_ready: Arc<Mutex<u32>>,
}

impl Extension {
    /// Starts on a port of its own and gives that.
    async fn start(&self, listener: TcpListener) {
        let routes = Router::new().route("/secretsmanager/get", route_get(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
    }

    fn put(&self, secret: Value) {
        *self.secret.lock().unwrap() = secret;
    }

    fn times_asked(&self) -> u32 {
        *self.asked.lock().unwrap()
    }
}

async fn answer(
    State(extension): State<Extension>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    let mut not_ready = extension.not_ready.lock().unwrap();
    if *not_ready > 0 {
        *not_ready -= 1;
        return (StatusCode::BAD_REQUEST, "not ready to serve traffic, please wait".to_owned());
    }
    if headers.get("x-aws-parameters-secrets-token").is_none_or(|token| token != SESSION_TOKEN) {
        return (StatusCode::UNAUTHORIZED, "some headers are missing".to_owned());
    }
    if query.get("secretId").is_none_or(|id| id != SECRET_ID) {
        return (StatusCode::BAD_REQUEST, "an unexpected secret".to_owned());
    }
    *extension.asked.lock().unwrap() += 1;
    let secret = extension.secret.lock().unwrap().to_string();
    (StatusCode::OK, json!({"ARN": SECRET_ID, "Name": "task-api/api", "SecretString": secret}).to_string())
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    (listener, port)
}

fn settings(port: u16) -> Vec<(String, String)> {
    [
        ("API_SECRET_ID", SECRET_ID),
        ("AWS_SESSION_TOKEN", SESSION_TOKEN),
        ("PARAMETERS_SECRETS_EXTENSION_HTTP_PORT", &port.to_string()),
        ("TRUSTED_ORIGINS", crate::api::ORIGIN),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

async fn status(function: &mut Lambda, request: &crate::api::Request) -> u64 {
    function.invoke(request.routed_event()).await["statusCode"].as_u64().expect("a status")
}

#[tokio::test]
async fn settings_come_from_the_secret_once_also_from_an_extension_that_starts_late() {
    let api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let extension = Extension::default();
    extension.put(json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": SECRET}));
    *extension.not_ready.lock().unwrap() = 3;
    let (reserved, port) = listener().await;
    drop(reserved);
    let mut function = Lambda::start(binary("list-tasks"), &settings(port)).await;
    // The function starts first, finds nobody on the port, and does not wait for long.
    let log = function.log_lines(2).await.join("\n");
    assert!(log.contains("the secret cannot be fetched yet"), "{log}");
    extension.start(TcpListener::bind(("127.0.0.1", port)).await.expect("the port")).await;
    for request in [get("/api/tasks").bearer(&ada.token), get("/api/tasks").cookie(&ada.token)] {
        assert_eq!(status(&mut function, &request).await, 200);
    }
    assert_eq!(extension.times_asked(), 1);
}

#[tokio::test]
async fn a_rotated_password_is_noticed_by_the_next_call() {
    let api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    // A role of this test's own: the others need theirs to stay.
    let role = format!("{}_api", api.database.name);
    let statement = format!("create role {role} login password 'the-first-password' in role tasks_api");
    api.database.sql(&statement, &[]).await;
    let url = |password: &str| {
        let usual = api.database.plain_api_url(SERVICES.postgres_port);
        usual.replace("tasks_api:", &format!("{role}:")).replace(&SERVICES.api_password, password)
    };
    let extension = Extension::default();
    extension.put(json!({"DATABASE_URL": url("the-first-password"), "BETTER_AUTH_SECRET": SECRET}));
    let (bound, port) = listener().await;
    extension.start(bound).await;
    let mut function = Lambda::start(binary("create-task"), &settings(port)).await;
    let create = post("/api/tasks").bearer(&ada.token).json(json!({"title": "x"}));
    assert_eq!(status(&mut function, &create).await, 201);

    // Younger than a second it would be taken for the one that was refused.
    tokio::time::sleep(Duration::from_millis(2100)).await;
    extension.put(json!({"DATABASE_URL": url("the-second-password"), "BETTER_AUTH_SECRET": SECRET}));
    api.database.sql(&format!("alter role {role} password 'the-second-password'"), &[]).await;
    api.database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", &[&role]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(status(&mut function, &create).await, 201, "{:?}", function.log_lines(2).await);
    assert_eq!(extension.times_asked(), 2);
    assert_eq!(api.database.number("select count(*) from tasks").await, 2, "and it was written once");
    for line in function.log_lines(3).await {
        assert!(!line.contains("-password"), "{line}");
    }
    drop(function);
    api.database.sql(&format!("drop role {role}"), &[]).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_had_is_a_503_until_it_can() {
    let api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let extension = Extension::default();
    let (bound, port) = listener().await;
    let mut denied = settings(port);
    denied.retain(|(name, _)| name != "AWS_SESSION_TOKEN");
    denied.push(("AWS_SESSION_TOKEN".to_owned(), "another-token".to_owned()));
    extension.start(bound).await;
    extension.put(json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": SECRET}));
    let mut function = Lambda::start(binary("list-tasks"), &denied).await;
    assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 503);
    let log = function.log_lines(2).await.join("\n");
    assert!(log.contains("the secrets extension answered 401"), "{log}");

    let (bound, port) = listener().await;
    drop(bound);
    let mut function = Lambda::start(binary("list-tasks"), &settings(port)).await;
    assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 503);
    extension.start(TcpListener::bind(("127.0.0.1", port)).await.expect("the port")).await;
    assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 200);
}

#[tokio::test]
async fn a_wrong_secret_ends_the_start_with_a_sentence_that_does_not_quote_it() {
    for (secret, says) in [
        (json!("s3cret"), "is not a JSON object of texts"),
        (json!({"DATABASE_URL": 5}), "is not a JSON object of texts"),
        (json!({"BETTER_AUTH_SECRET": "s3cret"}), "DATABASE_URL is not set"),
        (json!({"DATABASE_URL": "s3cret", "BETTER_AUTH_SECRET": "s3cret"}), "DATABASE_URL is not a URL"),
    ] {
        let extension = Extension::default();
        let (bound, port) = listener().await;
        extension.start(bound).await;
        extension.put(secret.clone());
        let function = Lambda::start(binary("list-tasks"), &settings(port)).await;
        if says.starts_with("is not") {
            // The secret itself cannot be read: that may be mended without a new start.
            let log = function.log_lines(1).await.join("\n");
            assert!(log.contains(says) && !log.contains("s3cret"), "{secret}: {log}");
        } else {
            let (code, log) = function.ended().await;
            let log = log.join("\n");
            assert!(code == Some(1) && log.contains(says) && !log.contains("s3cret"), "{secret}: {log}");
        }
    }
}

#[tokio::test]
async fn a_new_signing_secret_is_fetched_when_a_signature_does_not_fit_and_not_at_every_bad_one() {
    let api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let extension = Extension::default();
    extension.put(json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": SECRET}));
    let (bound, port) = listener().await;
    extension.start(bound).await;
    let mut function = Lambda::start(binary("list-tasks"), &settings(port)).await;
    assert_eq!(status(&mut function, &get("/api/tasks").cookie(&ada.token)).await, 200);
    let new_secret = "another-secret-of-the-tests-0123456789abcdef";
    let renewed = get("/api/tasks").raw_cookie(&session_cookie(&ada.token, new_secret));
    extension.put(json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": new_secret}));
    for _ in 0..3 {
        assert_eq!(status(&mut function, &renewed).await, 401, "the secret is too young to be asked for again");
    }
    assert_eq!(extension.times_asked(), 1);
    tokio::time::sleep(Duration::from_secs(32)).await;
    assert_eq!(status(&mut function, &renewed).await, 200);
    assert_eq!(status(&mut function, &get("/api/tasks").cookie(&ada.token)).await, 401, "the old one is out");
    assert_eq!(extension.times_asked(), 2);
}
