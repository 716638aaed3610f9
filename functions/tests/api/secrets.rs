//! Settings from Secrets Manager, and changes to them: with moto behind TLS, and with AWS errors that moto does not
//! produce.
use crate::{
    api::{Api, Request, SECRET, binary, get, post, session_cookie},
    prepared::sent,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use testing::{Lambda, Proxy, SERVICES, SecretsManager, User};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Returns an API, a secret with its settings, and a user.
async fn set_up() -> (Api, SecretsManager, User) {
    let api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let secret = json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": SECRET});
    let secrets = SecretsManager::with_secret(&secret).await;
    (api, secrets, ada)
}

async fn start(name: &str, secrets: &SecretsManager) -> Lambda {
    Lambda::start(&binary(name), &secrets.settings()).await
}

async fn status(function: &mut Lambda, request: &Request) -> u64 {
    function.invoke(request.routed_event()).await["statusCode"].as_u64().expect("a status")
}

/// Waits for the log line at the end of Init, and returns it with the lines before it.
async fn wait_for_init(function: &Lambda) -> (Value, Vec<String>) {
    let mut number = 1;
    loop {
        let mut lines = function.log_lines(number).await;
        let last: Value = serde_json::from_str(lines.last().expect("a line")).expect("a JSON line");
        if last["message"] == "started" {
            lines.pop();
            return (last, lines);
        }
        number += 1;
    }
}

/// Whether the function connected to the database in Init.
fn has_connected(started: &Value) -> bool {
    started["ConnectTime"].as_f64().is_some_and(|time| time > 0.0)
}

#[tokio::test]
async fn the_secret_is_read_once_in_init_and_the_database_connected_with_it() {
    let (_api, secrets, ada) = set_up().await;
    for name in ["list-tasks", "health"] {
        let before = secrets.request_count();
        let mut function = start(name, &secrets).await;
        let (line, warnings) = wait_for_init(&function).await;
        // health does not wake the database before it is asked to.
        assert!(has_connected(&line) == (name != "health") && warnings.is_empty(), "{name}: {line} {warnings:?}");
        let path = if name == "health" { "/health?deep=true" } else { "/api/tasks" };
        for request in [get(path).bearer(&ada.token), get(path).cookie(&ada.token)] {
            assert_eq!(status(&mut function, &request).await, 200, "{name}");
        }
        assert_eq!(secrets.request_count() - before, 1, "{name}");
    }
}

#[tokio::test]
async fn a_function_without_sessions_does_not_need_better_auths_secret() {
    let api = Api::start().await;
    let secrets = SecretsManager::with_secret(&json!({"DATABASE_URL": api.database.api_url()})).await;
    assert_eq!(status(&mut start("health", &secrets).await, &get("/health?deep=true")).await, 200);
    let purged = start("purge", &secrets).await.invoke(json!({"source": "aws.events"})).await;
    assert_eq!(purged["is_complete"], true, "{purged}");
}

#[tokio::test]
async fn without_better_auths_secret_a_bare_token_is_a_credential_and_nothing_else_is() {
    let api = Api::start().await;
    let ada = api.database.sign_up("ada").await;
    let secrets = SecretsManager::with_secret(&json!({"DATABASE_URL": api.database.api_url()})).await;
    let mut function = start("list-tasks", &secrets).await;
    let log = function.log_lines(1).await.join("\n");
    assert!(log.contains("BETTER_AUTH_SECRET is not set") && log.contains("WARN"), "{log}");
    assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 200);
    for request in [
        get("/api/tasks").cookie(&ada.token),
        get("/api/tasks").raw_cookie(&session_cookie(&ada.token, "")),
        get("/api/tasks").bearer(&format!("{}.x", ada.token)),
    ] {
        assert_eq!(status(&mut function, &request).await, 401);
    }
}

#[tokio::test]
async fn a_rotated_password_is_noticed_by_the_next_call() {
    for prepared in ["false", "true"] {
        let (api, secrets, ada) = set_up().await;
        let (network, messages) = Proxy::start_recording(SERVICES.postgres_port).await.expect("a free port");
        // A separate role, because other tests depend on the password of tasks_api.
        let role = format!("{}_api", api.database.name);
        let statement = format!("create role {role} login password 'the-first-password' in role tasks_api");
        api.database.sql(&statement, &[]).await;
        let secret = |password: &str| {
            let usual = api.database.plain_api_url(network.port());
            let url = usual.replace("tasks_api:", &format!("{role}:")).replace(&SERVICES.api_password, password);
            json!({"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET})
        };
        secrets.put(&secret("the-first-password")).await;
        let mut settings = secrets.settings();
        settings.push(("PREPARED_STATEMENTS".to_owned(), prepared.to_owned()));
        let mut function = Lambda::start(&binary("create-task"), &settings).await;
        let create = post("/api/tasks").bearer(&ada.token).json(json!({"title": "x"}));
        assert_eq!(status(&mut function, &create).await, 201);

        // A secret fetched less than a second ago is not fetched again after a refused password.
        tokio::time::sleep(Duration::from_millis(2100)).await;
        secrets.put(&secret("the-second-password")).await;
        api.database.sql(&format!("alter role {role} password 'the-second-password'"), &[]).await;
        api.database.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", &[&role]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(status(&mut function, &create).await, 201, "{:?}", function.log_lines(2).await);
        assert_eq!(secrets.request_count(), 2);
        assert_eq!(api.database.number("select count(*) from tasks").await, 2, "each creation was written once");

        messages.take();
        assert_eq!(status(&mut function, &create).await, 201);
        let expected = if prepared == "true" { "BES" } else { "PBDES" };
        assert_eq!(sent(&messages), (expected.to_owned(), 1), "the new connection has prepared it: {prepared}");
        for line in function.log_lines(4).await {
            assert!(!line.contains("-password") && !line.contains("no longer prepared"), "{line}");
        }
        drop(function);
        api.database.sql(&format!("drop role {role}"), &[]).await;
    }
}

/// The error types are from the API reference of GetSecretValue. moto's errors differ from AWS's only in parts that the
/// functions do not read.
#[tokio::test]
async fn an_unavailable_secret_is_logged_in_a_sentence_and_a_503_until_it_can_be_fetched() {
    for (status_code, error, message) in [
        (400, "AccessDeniedException", "needs secretsmanager:GetSecretValue"),
        (400, "DecryptionFailure", "kms:Decrypt"),
        (400, "ThrottlingException", "throttles requests"),
        (429, "TooManyRequestsException", "throttles requests"),
        (400, "ExpiredTokenException", "does not accept the function's credentials"),
        (500, "InternalServiceError", "failed"),
    ] {
        let (_api, secrets, ada) = set_up().await;
        secrets.refuse(Some((status_code, error)));
        let began = Instant::now();
        let mut function = start("list-tasks", &secrets).await;
        let (line, warnings) = wait_for_init(&function).await;
        assert!(
            line["InitTime"].as_f64().is_some_and(|time| time < 2500.0) && !has_connected(&line),
            "{error}: {line}"
        );
        assert!(warnings.join("\n").contains(message), "{error}: {warnings:?}");
        let answer = function.invoke(get("/api/tasks").bearer(&ada.token).routed_event()).await;
        assert_eq!((&answer["statusCode"], &answer["headers"]["retry-after"]), (&json!(503), &json!("1")), "{answer}");
        assert!(answer["body"].as_str().is_some_and(|body| body.contains("cannot read its settings")), "{answer}");
        let log = function.log_lines(3).await.join("\n");
        assert!(log.contains(message) && log.contains("\"DatabaseFailures\":0"), "{error}: {log}");
        // Temporary errors are retried with pauses; permanent ones are not.
        let is_temporary = message.starts_with("throttles") || message == "failed";
        let (requests, elapsed) = (secrets.request_count(), began.elapsed());
        assert!(
            if is_temporary { (6..40).contains(&requests) } else { requests == 2 },
            "{error}: {requests} requests in {elapsed:?}"
        );
        secrets.refuse(None);
        assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 200, "{error}");
    }
}

#[tokio::test]
async fn brief_throttling_has_no_effect() {
    let (_api, secrets, ada) = set_up().await;
    secrets.refuse(Some((400, "ThrottlingException")));
    let mut function = start("list-tasks", &secrets).await;
    while secrets.request_count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    secrets.refuse(None);
    let (line, warnings) = wait_for_init(&function).await;
    assert!(has_connected(&line) && warnings.is_empty(), "{line} {warnings:?}");
    assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 200);
}

#[tokio::test]
async fn an_unreachable_or_silent_secrets_manager_delays_init_by_two_seconds_at_most() {
    let (_api, mut secrets, ada) = set_up().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = format!("https://{}", silent.local_addr().expect("a bound port"));
    secrets.stop();
    for (endpoint, message) in [(None, "cannot be reached"), (Some(silent), "did not answer within")] {
        let mut settings = secrets.settings();
        if let Some(endpoint) = endpoint {
            settings.retain(|(name, _)| name != "AWS_ENDPOINT_URL_SECRETS_MANAGER");
            settings.push(("AWS_ENDPOINT_URL".to_owned(), endpoint));
        }
        let mut function = Lambda::start(&binary("list-tasks"), &settings).await;
        let (line, warnings) = wait_for_init(&function).await;
        assert!(line["InitTime"].as_f64().is_some_and(|time| time < 2500.0), "{line}");
        assert!(warnings.join("\n").contains(message), "{warnings:?}");
        if message.starts_with("cannot") {
            secrets.restart().await;
            assert_eq!(
                status(&mut function, &get("/api/tasks").bearer(&ada.token)).await,
                200,
                "the secret is fetched again"
            );
        }
    }
}

#[tokio::test]
async fn a_server_without_a_valid_certificate_does_not_learn_the_secrets_id() {
    let (_api, secrets, ada) = set_up().await;
    let mut settings = secrets.settings();
    settings.retain(|(name, _)| name != "AWS_CA_BUNDLE");
    let mut function = Lambda::start(&binary("list-tasks"), &settings).await;
    assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 503);
    assert!(function.log_lines(1).await.join("\n").contains("no TLS with localhost"), "the log must name the cause");
    settings.push(("AWS_CA_BUNDLE".to_owned(), "/nowhere.pem".to_owned()));
    let mut function = Lambda::start(&binary("list-tasks"), &settings).await;
    assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 503);
    let log = function.log_lines(1).await.join("\n");
    assert!(log.contains("AWS_CA_BUNDLE names a file that cannot be read: /nowhere.pem"), "{log}");
    assert_eq!(secrets.request_count(), 0);
}

#[tokio::test]
async fn an_invalid_secret_is_reported_in_a_sentence_that_does_not_quote_it() {
    for (secret, message) in [
        ("\"s3cret\"", "is not a JSON object of strings"),
        ("s3cret=1", "is not a JSON object of strings"),
        ("{\"DATABASE_URL\": 5}", "is not a JSON object of strings"),
        ("binary", "is binary"),
        ("deleted", "has no secret of API_SECRET_ID"),
    ] {
        let (_api, secrets, ada) = set_up().await;
        match secret {
            "binary" => secrets.put_binary("czNjcmV0").await,
            "deleted" => secrets.delete().await,
            text => secrets.put_text(text).await,
        }
        // The process keeps running, because the secret can be fixed without a restart.
        let mut function = start("list-tasks", &secrets).await;
        let log = function.log_lines(1).await.join("\n");
        assert!(log.contains(message) && !log.contains("s3cret"), "{secret}: {log}");
        assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 503, "{secret}");
    }
    for (secret, message) in [
        (json!({"BETTER_AUTH_SECRET": "s3cret"}), "DATABASE_URL is not set"),
        (json!({"DATABASE_URL": "s3cret", "BETTER_AUTH_SECRET": "s3cret"}), "DATABASE_URL is not a URL"),
    ] {
        let secrets = SecretsManager::with_secret(&secret).await;
        let (code, log) = start("list-tasks", &secrets).await.ended().await;
        let log = log.join("\n");
        assert!(code == Some(1) && log.contains(message) && !log.contains("s3cret"), "{secret}: {log}");
    }
}

#[tokio::test]
async fn an_invalid_new_secret_leaves_the_old_one_in_force() {
    let (api, _, ada) = set_up().await;
    let good = json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": SECRET});
    let without_key = json!({"DATABASE_URL": api.database.api_url()}).to_string();
    let mut functions = Vec::new();
    for (secret, cause) in [("s3cret", "JSON object"), (&*without_key, "no longer in the secret")] {
        let secrets = SecretsManager::with_secret(&good).await;
        let mut function = start("list-tasks", &secrets).await;
        assert_eq!(status(&mut function, &get("/api/tasks").bearer(&ada.token)).await, 200);
        secrets.put_text(secret).await;
        functions.push((function, secrets, cause));
    }
    tokio::time::sleep(Duration::from_secs(32)).await;
    for (mut function, _secrets, cause) in functions {
        let forged = get("/api/tasks").raw_cookie(&session_cookie(&ada.token, "wrong"));
        assert_eq!(status(&mut function, &forged).await, 401);
        let log = function.log_lines(3).await.join("\n");
        assert!(log.contains("stays in force, for an hour at most") && log.contains(cause), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
        assert_eq!(status(&mut function, &get("/api/tasks").cookie(&ada.token)).await, 200);
    }
}

#[tokio::test]
async fn a_new_signing_secret_is_fetched_after_a_bad_signature_but_not_after_every_one() {
    let (api, secrets, ada) = set_up().await;
    let mut function = start("list-tasks", &secrets).await;
    assert_eq!(status(&mut function, &get("/api/tasks").cookie(&ada.token)).await, 200);
    let new_secret = "another-secret-of-the-tests-0123456789abcdef";
    let renewed = get("/api/tasks").raw_cookie(&session_cookie(&ada.token, new_secret));
    secrets.put(&json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": new_secret})).await;
    for _ in 0..3 {
        assert_eq!(
            status(&mut function, &renewed).await,
            401,
            "the secret was fetched less than 30 s ago, so it is not fetched again"
        );
    }
    assert_eq!(secrets.request_count(), 1);
    tokio::time::sleep(Duration::from_secs(32)).await;
    assert_eq!(status(&mut function, &renewed).await, 200);
    assert_eq!(
        status(&mut function, &get("/api/tasks").cookie(&ada.token)).await,
        401,
        "the old signing secret no longer works"
    );
    assert_eq!(secrets.request_count(), 2);
}

/// A separate moto server that checks IAM rights, and signatures with AWS's botocore.
struct StrictMoto {
    process: Child,
    address: String,
}

impl StrictMoto {
    /// Starts moto. It does not check the first `unchecked` requests.
    async fn start(unchecked: u32) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port").to_string();
        drop(listener);
        let process = Command::new(&SERVICES.moto_server)
            .args(["-H", "127.0.0.1", "-p", address.rsplit(':').next().expect("a port")])
            .env("INITIAL_NO_AUTH_ACTION_COUNT", unchecked.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let until = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(&address).await.is_err() {
            assert!(Instant::now() < until, "moto does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { process, address }
    }

    /// Sends a request to an AWS service, and returns the text of the whole response.
    async fn send(&self, service: &str, headers: &str, body: &str) -> String {
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\nauthorization: AWS4-HMAC-SHA256 Credential=testing/20260101/eu-central-1/{service}/aws4_request, SignedHeaders=host, Signature=0\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.expect("moto runs");
        stream.write_all(request.as_bytes()).await.expect("moto listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("moto answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{body}: {answer}");
        answer
    }

    async fn iam(&self, body: &str) -> String {
        self.send("iam", "content-type: application/x-www-form-urlencoded", body).await
    }
}

impl Drop for StrictMoto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn requests_are_signed_as_botocore_signs_them_and_iam_rights_apply() {
    let (api, _, ada) = set_up().await;
    let moto = StrictMoto::start(6).await;
    let secret = json!({"DATABASE_URL": api.database.api_url(), "BETTER_AUTH_SECRET": SECRET}).to_string();
    let token = "00000000-0000-0000-0000-000000000000";
    let body = json!({"Name": "api", "SecretString": secret, "ClientRequestToken": token}).to_string();
    let headers = "x-amz-target: secretsmanager.CreateSecret\r\ncontent-type: application/x-amz-json-1.1";
    let answer = moto.send("secretsmanager", headers, &body).await;
    let arn = answer.split('"').find(|text| text.starts_with("arn:aws:secretsmanager:")).expect("an ARN");
    let mut keys = Vec::new();
    for user in ["function", "stranger"] {
        moto.iam(&format!("Action=CreateUser&Version=2010-05-08&UserName={user}")).await;
        let key = moto.iam(&format!("Action=CreateAccessKey&Version=2010-05-08&UserName={user}")).await;
        keys.push(["AccessKeyId", "SecretAccessKey"].map(|name| {
            let value = key.split(&format!("<{name}>")).nth(1).and_then(|rest| rest.split('<').next());
            value.unwrap_or_else(|| panic!("no {name}: {key}")).to_owned()
        }));
    }
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
    ]});
    let policy = utf8_percent_encode(&policy.to_string(), NON_ALPHANUMERIC).to_string();
    let put = "Action=PutUserPolicy&Version=2010-05-08&UserName=function&PolicyName=read";
    moto.iam(&format!("{put}&PolicyDocument={policy}")).await;

    let [function, stranger] = [&keys[0], &keys[1]];
    for (id, secret_key, expected) in [
        (&*function[0], &*function[1], 200),
        (&function[0], "the-key-of-somebody-else", 503),
        (&stranger[0], &stranger[1], 503),
    ] {
        let settings = [
            ("API_SECRET_ID", arn),
            ("AWS_ACCESS_KEY_ID", id),
            ("AWS_SECRET_ACCESS_KEY", secret_key),
            ("AWS_ENDPOINT_URL", &format!("http://{}", moto.address)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut function = Lambda::start(&binary("list-tasks"), &settings).await;
        let status = status(&mut function, &get("/api/tasks").bearer(&ada.token)).await;
        let log = function.log_lines(2).await.join("\n");
        assert_eq!(status, expected, "{log}");
        assert_eq!(log.contains("(403)"), expected == 503, "{log}");
        assert!(!log.contains(secret_key), "{log}");
    }
}
