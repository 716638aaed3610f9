//! The migrate function: the real binary through a Lambda Runtime API, with moto's Secrets Manager, a real PostgreSQL,
//! and a fake CloudFormation (its API and its response URL). `cargo xtask test migrate` starts what they need.
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    routing::{post, put},
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use testing::{Lambda, SERVICES, program};
use tokio::{net::TcpListener, sync::mpsc};

/// A path that must not be logged: whoever has it can respond in the function's place.
const ANSWER_PATH: &str = "/the-signed-answer-url";

const STACK_ID: &str = "arn:aws:cloudformation:eu-central-1:123456789012:stack/task-api/1";

/// How the fake CloudFormation answers DescribeStacks.
#[derive(Clone, Copy)]
enum StackReply {
    /// With this stack status.
    Status(&'static str),
    /// With AccessDenied.
    Denied,
    /// Not at all.
    Silent,
}

/// An empty database, the function with its secrets, and a fake CloudFormation.
struct Deployment {
    database: testing::Database,
    function: Lambda,
    settings: Vec<(String, String)>,
    stack: Arc<Mutex<StackReply>>,
    answer_url: String,
    answers: mpsc::Receiver<(HeaderMap, Value)>,
}

impl Deployment {
    async fn start() -> Self {
        Self::with_owner_url(str::to_owned).await
    }

    /// Puts the result of `change` into the owner's secret, instead of the owner's URL.
    async fn with_owner_url(change: impl FnOnce(&str) -> String) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let database = testing::Database::create_empty().await;
        testing::remember_secret(ANSWER_PATH);
        for (name, value) in [
            ("owner", json!({"DATABASE_URL_UNPOOLED": change(&database.owner_url())})),
            ("api", json!({"DATABASE_URL": database.api_url(), "BETTER_AUTH_SECRET": "not-this-function's-business"})),
        ] {
            create_secret(&format!("{name}-{number}"), &value).await;
        }
        let stack = Arc::new(Mutex::new(StackReply::Status("UPDATE_IN_PROGRESS")));
        let mut settings = aws_settings();
        settings.push(("AWS_ENDPOINT_URL_CLOUDFORMATION".to_owned(), cloudformation(stack.clone()).await));
        let secrets = [
            ("OWNER_SECRET_ID".to_owned(), format!("owner-{number}")),
            ("API_SECRET_ID".to_owned(), format!("api-{number}")),
        ];
        let function = Lambda::start(&program(env!("CARGO_BIN_EXE_migrate")), &[&*settings, &secrets].concat()).await;

        let (heard, answers) = mpsc::channel(4);
        let listen = move |headers: HeaderMap, body: Bytes| async move {
            let body = serde_json::from_slice(&body).expect("JSON");
            heard.send((headers, body)).await.map_or(StatusCode::GONE, |()| StatusCode::OK)
        };
        let answer_url = serve(Router::new().route(ANSWER_PATH, put(listen))).await + ANSWER_PATH;
        Self { database, function, settings, stack, answer_url, answers }
    }

    /// Restarts the function with these settings in addition to those of the SDK.
    async fn restart_function(&mut self, settings: &[(&str, &str)]) {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = self.settings.iter().cloned().chain(settings).collect();
        self.function = Lambda::start(&program(env!("CARGO_BIN_EXE_migrate")), &settings).await;
    }

    fn set_stack(&self, stack: StackReply) {
        *self.stack.lock().expect("no panic") = stack;
    }

    /// Sends CloudFormation's request to the function, and returns the function's response.
    async fn request(&mut self, request_type: &str) -> Value {
        let event = self.event(request_type, &self.answer_url);
        self.function.invoke(event).await;
        let (headers, answer) = self.answers.recv().await.expect("an answer");
        assert!(headers.get("content-type").is_none_or(|it| it.is_empty()), "the URL is signed for an empty type");
        for (field, value) in [
            ("StackId", STACK_ID),
            ("RequestId", "a-request"),
            ("LogicalResourceId", "Migrations"),
            ("PhysicalResourceId", "migrations"),
        ] {
            assert_eq!(answer[field], value, "{answer}");
        }
        answer
    }

    fn event(&self, request_type: &str, answer_url: &str) -> Value {
        let mut event = json!({
            "RequestType": request_type,
            "ResponseURL": answer_url,
            "StackId": STACK_ID,
            "RequestId": "a-request",
            "ResourceType": "Custom::Migrations",
            "LogicalResourceId": "Migrations",
            "ServiceToken": "arn:aws:lambda:eu-central-1:123456789012:function:migrate",
            "ResourceProperties": {"DeploymentId": "1", "ServiceTimeout": "300"},
        });
        if request_type != "Create" {
            event["PhysicalResourceId"] = json!("migrations");
            event["OldResourceProperties"] = json!({"DeploymentId": "0"});
        }
        event
    }

    async fn tables(&self) -> i64 {
        self.database.number("select count(*) from pg_class where relnamespace = 'public'::regnamespace").await
    }
}

/// Serves on a free port and returns the base URL.
async fn serve(routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound port"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// A fake of CloudFormation's DescribeStacks, with responses as in
/// docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html.
async fn cloudformation(stack: Arc<Mutex<StackReply>>) -> String {
    let describe = move |question: String| async move {
        assert!(question.contains("Action=DescribeStacks"), "{question}");
        assert!(
            question.contains(&format!("StackName={}", STACK_ID.replace(':', "%3A").replace('/', "%2F"))),
            "{question}"
        );
        let stack = *stack.lock().expect("no panic");
        match stack {
            StackReply::Status(status) => (
                StatusCode::OK,
                format!(
                    r#"<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
                      <DescribeStacksResult>
                        <Stacks>
                          <member>
                            <StackName>task-api</StackName>
                            <StackId>{STACK_ID}</StackId>
                            <CreationTime>2026-11-24T22:28:28Z</CreationTime>
                            <StackStatus>{status}</StackStatus>
                            <DisableRollback>false</DisableRollback>
                          </member>
                        </Stacks>
                      </DescribeStacksResult>
                      <ResponseMetadata><RequestId>b9b4b068-3a41-11e5-94eb-example</RequestId></ResponseMetadata>
                    </DescribeStacksResponse>"#
                ),
            ),
            StackReply::Denied => (
                StatusCode::FORBIDDEN,
                r#"<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">
                  <Error>
                    <Type>Sender</Type>
                    <Code>AccessDenied</Code>
                    <Message>User: migrate is not authorized to perform: cloudformation:DescribeStacks</Message>
                  </Error>
                  <RequestId>b9b4b068-3a41-11e5-94eb-example</RequestId>
                </ErrorResponse>"#
                    .to_owned(),
            ),
            StackReply::Silent => std::future::pending().await,
        }
    };
    serve(Router::new().route("/", post(describe))).await
}

/// Settings that point the SDK at moto.
fn aws_settings() -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", &*moto()),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_SESSION_TOKEN", "testing"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn moto() -> String {
    std::env::var("MOTO_URL").expect("these tests need moto: run them with 'cargo xtask test migrate', which starts it")
}

async fn create_secret(name: &str, value: &Value) {
    let request = reqwest::Client::new()
        .post(moto())
        .header("x-amz-target", "secretsmanager.CreateSecret")
        .header("content-type", "application/x-amz-json-1.1")
        // moto reads only the region.
        .header("authorization", "AWS4-HMAC-SHA256 Credential=testing/20260101/eu-central-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=0");
    let body = json!({"Name": name, "SecretString": value.to_string(), "ClientRequestToken": "00000000-0000-0000-0000-000000000000"});
    let answer = request.body(body.to_string()).send().await.expect("moto answers");
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
}

#[tokio::test]
async fn a_new_stack_gets_its_tables_and_the_apis_role_its_password() {
    let mut stack = Deployment::start().await;
    let answer = stack.request("Create").await;
    assert_eq!(answer["Status"], "SUCCESS", "{answer}");
    assert!(answer["Reason"].as_str().is_some_and(|reason| reason.starts_with("applied 0001 ")), "{answer}");
    let ada = stack.database.sign_up("ada").await;
    assert_eq!(stack.database.number("select count(*) from tasks").await, 0);
    let by_api = format!("select count(*) from caller('{}')", ada.token);
    assert_eq!(
        stack.database.number_as_api(&by_api).await,
        1,
        "the API's role cannot connect with the password in its secret"
    );

    let answer = stack.request("Update").await;
    assert_eq!((&answer["Status"], &answer["Reason"]), (&json!("SUCCESS"), &json!("nothing was pending")));
}

#[tokio::test]
async fn a_failing_migration_fails_the_deployment_with_its_reason_and_leaves_the_database_as_it_was() {
    let mut stack = Deployment::start().await;
    // Migration 0003 refuses this table.
    stack.database.sql("create table tasks (id integer)", &[]).await;
    let before = stack.tables().await;
    let answer = stack.request("Create").await;
    assert_eq!(answer["Status"], "FAILED");
    let reason = answer["Reason"].as_str().expect("a reason");
    assert!(reason.contains("migration 0003 failed") && reason.contains("title"), "{reason}");
    assert_eq!(stack.tables().await, before);
}

#[tokio::test]
async fn an_unreachable_or_refusing_database_is_reported_as_a_failure() {
    for (change, says) in [
        (
            &(|url: &str| url.replace(&format!(":{}/", SERVICES.postgres_port), ":1/")) as &dyn Fn(&str) -> String,
            "efused",
        ),
        (&|url: &str| url.replacen("tasks_owner:", "tasks_owner:wrong-", 1), "password authentication failed"),
        (&|_: &str| "postgresql://a:s3cret@ep-a-pooler.eu-central-1.aws.neon.tech/db".to_owned(), "-pooler"),
        (&|_: &str| "s3cret".to_owned(), "DATABASE_URL_UNPOOLED in the secret of OWNER_SECRET_ID is not a URL"),
    ] {
        let mut stack = Deployment::with_owner_url(change).await;
        let answer = stack.request("Create").await;
        assert_eq!(answer["Status"], "FAILED", "{answer}");
        assert!(answer["Reason"].as_str().is_some_and(|reason| reason.contains(says)), "{answer}");
        assert!(!answer.to_string().contains("s3cret"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_comes_before_the_functions_time_is_up() {
    // A server that accepts connections and never sends a byte.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = silent.local_addr().expect("a bound port").port();
    let mut stack =
        Deployment::with_owner_url(|url| url.replace(&format!(":{}/", SERVICES.postgres_port), &format!(":{port}/")))
            .await;
    stack.function = stack.function.with_timeout(Duration::from_secs(13));
    let began = Instant::now();
    let answer = stack.request("Create").await;
    assert_eq!(answer["Status"], "FAILED", "{answer}");
    assert!(answer["Reason"].as_str().is_some_and(|reason| reason.contains("not done within")), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(13), "Lambda would have ended the function");
}

#[tokio::test]
async fn a_migration_that_waits_for_a_lock_gives_up_and_says_so() {
    let mut stack = Deployment::start().await;
    stack.request("Create").await;
    stack.function.invoke(json!({"command": "down"})).await;
    stack.database.sql("begin", &[]).await;
    stack.database.sql("lock table _sqlx_migrations", &[]).await;
    stack.function = stack.function.with_timeout(Duration::from_secs(25));
    let answer = stack.request("Update").await;
    assert_eq!(answer["Status"], "FAILED", "{answer}");
    assert!(answer["Reason"].as_str().is_some_and(|reason| reason.contains("lock timeout")), "{answer}");
    stack.database.sql("rollback", &[]).await;
    assert_eq!(stack.request("Update").await["Status"], "SUCCESS");
}

#[tokio::test]
async fn a_stack_that_goes_or_rolls_back_keeps_the_database() {
    let mut stack = Deployment::start().await;
    stack.request("Create").await;
    let before = stack.tables().await;
    let answer = stack.request("Delete").await;
    assert_eq!((&answer["Status"], stack.tables().await), (&json!("SUCCESS"), before));

    // The previous version is deployed after a later deployment failed.
    stack
        .database
        .sql("insert into _sqlx_migrations values (9999, 'of the next version', now(), true, 'x', 0)", &[])
        .await;
    let answer = stack.request("Update").await;
    assert_eq!((&answer["Status"], stack.tables().await), (&json!("SUCCESS"), before), "{answer}");
    assert!(answer["Reason"].as_str().is_some_and(|reason| reason.contains("ahead of this version")), "{answer}");

    // By hand, the unknown migration is an error.
    let failure = stack.function.try_invoke(json!({"command": "up"})).await.expect_err("a failure");
    assert!(failure.to_string().contains("9999"), "{failure}");
}

#[tokio::test]
async fn a_rollback_succeeds_while_the_cause_of_the_failure_remains() {
    let mut stack = Deployment::with_owner_url(|url| {
        let (_, rest) = url.split_once('@').expect("a user");
        format!("postgresql://owner_of_one:before@{rest}")
    })
    .await;
    // A separate owner role, because all tests share the usual one.
    let name = stack.database.name.clone();
    stack.database.sql("create role owner_of_one login superuser password 'before'", &[]).await;
    stack.database.sql(&format!("alter database {name} owner to owner_of_one"), &[]).await;
    assert_eq!(stack.request("Create").await["Status"], "SUCCESS");
    let before = stack.tables().await;

    stack.database.sql("alter role owner_of_one password 'after'", &[]).await;
    let answer = stack.request("Update").await;
    assert_eq!(answer["Status"], "FAILED", "{answer}");
    assert!(answer["Reason"].as_str().is_some_and(|reason| reason.contains("password authentication")), "{answer}");

    stack.set_stack(StackReply::Status("UPDATE_ROLLBACK_IN_PROGRESS"));
    let answer = stack.request("Update").await;
    let expected = json!("the stack is rolling back: the database stays as it is");
    assert_eq!((&answer["Status"], &answer["Reason"]), (&json!("SUCCESS"), &expected));
    // It reads no secret before that, so it succeeds without the secrets' settings.
    stack.restart_function(&[]).await;
    assert_eq!(stack.request("Update").await["Reason"], expected);
    assert_eq!(stack.request("Delete").await["Status"], "SUCCESS");
    assert_eq!(stack.tables().await, before);
}

#[tokio::test]
async fn where_the_stacks_status_is_not_known_it_migrates_as_usual() {
    for (unknown, cause) in [(StackReply::Denied, "AccessDenied"), (StackReply::Silent, "no answer within 5 s")] {
        let mut stack = Deployment::start().await;
        stack.set_stack(unknown);
        let began = Instant::now();
        let answer = stack.request("Update").await;
        assert_eq!(answer["Status"], "SUCCESS", "{answer}");
        assert!(answer["Reason"].as_str().is_some_and(|reason| reason.starts_with("applied 0001 ")), "{answer}");
        assert!(began.elapsed() < Duration::from_secs(15), "{cause}: {:?}", began.elapsed());
        let log = stack.function.log_lines(2).await.join("\n");
        assert!(log.contains("the stack's status is not known") && log.contains(cause), "{log}");
    }
}

/// A fake GetSecretValue of Secrets Manager. The first `refusals` requests get an error with this code. Later ones get
/// the secret, or truncated JSON if `broken`.
async fn secrets_manager(refusals: u32, code: &'static str, secret: Value, broken: bool) -> String {
    let asked = AtomicU32::new(0);
    let answer = move |headers: HeaderMap| {
        assert_eq!(headers["x-amz-target"], "secretsmanager.GetSecretValue");
        let mut answer = (StatusCode::OK, json!({"Name": "a-secret", "SecretString": secret.to_string()}).to_string());
        if asked.fetch_add(1, Ordering::Relaxed) < refusals {
            let message = "User: migrate is not authorized to perform: secretsmanager:GetSecretValue";
            answer = (StatusCode::BAD_REQUEST, json!({"__type": code, "Message": message}).to_string());
        } else if broken {
            answer.1.pop();
        }
        async move { answer }
    };
    let answer = Arc::new(answer);
    serve(Router::new().route("/", post(move |headers: HeaderMap| answer(headers)))).await
}

/// The contents of both secrets, merged into one.
fn both_secrets(database: &testing::Database) -> Value {
    json!({"DATABASE_URL_UNPOOLED": database.owner_url(), "DATABASE_URL": database.api_url()})
}

#[tokio::test]
async fn a_role_that_is_too_new_for_secrets_manager_is_waited_for() {
    for code in ["AccessDeniedException", "UnrecognizedClientException"] {
        let mut stack = Deployment::start().await;
        let url = secrets_manager(2, code, both_secrets(&stack.database), false).await;
        let settings =
            [("AWS_ENDPOINT_URL_SECRETS_MANAGER", &*url), ("OWNER_SECRET_ID", "both"), ("API_SECRET_ID", "both")];
        stack.restart_function(&settings).await;
        let answer = stack.request("Create").await;
        assert_eq!(answer["Status"], "SUCCESS", "{answer}");
        let log = stack.function.log_lines(3).await;
        let waits = log.iter().filter(|line| line.contains("asking again") && line.contains(code)).count();
        assert_eq!(waits, 2, "{log:#?}");
    }
}

#[tokio::test]
async fn a_role_that_stays_refused_is_a_failure_with_its_reason_before_the_time_is_up() {
    let mut stack = Deployment::start().await;
    let url = secrets_manager(u32::MAX, "AccessDeniedException", both_secrets(&stack.database), false).await;
    let settings =
        [("AWS_ENDPOINT_URL_SECRETS_MANAGER", &*url), ("OWNER_SECRET_ID", "both"), ("API_SECRET_ID", "both")];
    stack.restart_function(&settings).await;
    // Each timeout includes the 10 s that are kept for the response.
    for (timeout_s, least_s, most_s) in [(14, 2, 4), (28, 8, 11)] {
        stack.function = stack.function.with_timeout(Duration::from_secs(timeout_s));
        let began = Instant::now();
        let answer = stack.request("Create").await;
        let took = began.elapsed();
        assert_eq!(answer["Status"], "FAILED", "{answer}");
        let reason = answer["Reason"].as_str().expect("a reason");
        assert!(reason.contains("the secret of OWNER_SECRET_ID cannot be read"), "{reason}");
        assert!(reason.contains("AccessDeniedException") && reason.contains("not authorized to perform"), "{reason}");
        assert!(took > Duration::from_secs(least_s) && took < Duration::from_secs(most_s), "{took:?}");
    }
}

#[tokio::test]
async fn an_answer_of_secrets_manager_that_cannot_be_read_is_not_shown() {
    let mut stack = Deployment::start().await;
    let url = secrets_manager(0, "", json!("s3cret"), true).await;
    let settings =
        [("AWS_ENDPOINT_URL_SECRETS_MANAGER", &*url), ("OWNER_SECRET_ID", "both"), ("API_SECRET_ID", "both")];
    stack.restart_function(&settings).await;
    let answer = stack.request("Create").await;
    assert_eq!(answer["Status"], "FAILED", "{answer}");
    assert!(answer["Reason"].as_str().is_some_and(|reason| reason.contains("cannot be read")), "{answer}");
    assert!(!answer.to_string().contains("s3cret"), "{answer}");
    let log = stack.function.log_lines(1).await.join("\n");
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test]
async fn without_its_secrets_it_still_answers() {
    let mut stack = Deployment::start().await;
    stack.restart_function(&[]).await;
    let answer = stack.request("Create").await;
    assert_eq!(answer["Status"], "FAILED");
    assert!(
        answer["Reason"].as_str().is_some_and(|reason| reason.starts_with("OWNER_SECRET_ID is not set")),
        "{answer}"
    );

    stack.restart_function(&[("OWNER_SECRET_ID", "nowhere"), ("API_SECRET_ID", "nowhere")]).await;
    let answer = stack.request("Create").await;
    assert_eq!(answer["Status"], "FAILED");
    assert!(answer["Reason"].as_str().is_some_and(|reason| reason.contains("cannot be read")), "{answer}");
}

#[tokio::test]
async fn an_undeliverable_answer_fails_the_invocation_without_showing_the_url() {
    let mut stack = Deployment::start().await;
    let event = stack.event("Delete", &format!("http://127.0.0.1:1{ANSWER_PATH}"));
    let failure = stack.function.try_invoke(event).await.expect_err("nobody listens").to_string();
    assert!(failure.contains("does not take the answer") && !failure.contains(ANSWER_PATH), "{failure}");
}

#[tokio::test]
async fn every_command_works_by_hand() {
    let mut stack = Deployment::start().await;
    let function = &mut stack.function;
    let status = function.invoke(json!({"command": "status"})).await;
    assert_eq!(status["migrations"][0], json!({"version": 1, "description": "migration tools", "state": "pending"}));
    let up = function.invoke(json!({"command": "up"})).await;
    assert_eq!(up["applied"][0], "0001 migration tools");
    assert_eq!(function.invoke(json!({"command": "check"})).await, json!({"differences": [], "notes": []}));
    // Another role reads a table without row-level security: it stays open, with a note, until the command closes it.
    let open = "do $$ begin create role reporting login; exception when duplicate_object then null; end $$;
        grant select on session to reporting; alter table session disable row level security";
    stack.database.batch(open).await;
    function.invoke(json!({"command": "up"})).await;
    let notes = function.invoke(json!({"command": "check"})).await["notes"].clone();
    assert!(notes.to_string().contains("row-level security is off for session"), "{notes}");
    function.invoke(json!({"command": "up", "rls": true})).await;
    assert_eq!(function.invoke(json!({"command": "check"})).await, json!({"differences": [], "notes": []}));
    let last = up["applied"].as_array().and_then(|applied| applied.last()).cloned();
    assert_eq!(function.invoke(json!({"command": "down"})).await["reverted"][0], last.expect("the last"));
    let down = function.invoke(json!({"command": "down", "to": 1})).await;
    assert!(!down["reverted"].as_array().expect("a list").is_empty());
    let status = function.invoke(json!({"command": "status"})).await;
    assert_eq!(
        (&status["migrations"][0]["state"], &status["migrations"][1]["state"]),
        (&json!("applied"), &json!("pending"))
    );
    for wrong in
        [json!({}), json!({"command": "drop"}), json!({"command": "down", "too": 1}), json!("status"), Value::Null]
    {
        let failure = function.try_invoke(wrong).await.expect_err("no command");
        assert!(failure.to_string().contains("neither CloudFormation's nor a command"), "{failure}");
    }
}
