//! A Lambda Runtime API, and one real function binary that polls it.
//!
//! Written by hand because the emulators that exist run one call at a time from a command line of their own; the protocol
//! is two routes (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use serde_json::{Value, json};
use std::{
    process::Stdio,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::{Mutex, mpsc},
    time::timeout,
};

/// How long a function may take to answer before the test gives up, in seconds: no measure of speed.
const ANSWER_TIMEOUT_S: u64 = 30;

/// One running instance of a function.
pub struct Lambda {
    name: String,
    events: mpsc::Sender<Value>,
    answers: mpsc::Receiver<Result<Value, Value>>,
    log: Arc<StdMutex<Vec<String>>>,
    process: Child,
}

struct RuntimeApi {
    events: Mutex<mpsc::Receiver<Value>>,
    answers: mpsc::Sender<Result<Value, Value>>,
    requests: AtomicU64,
}

impl Lambda {
    /// Starts a binary with the environment that Lambda would give it, and `settings`.
    pub async fn start(name: &str, settings: &[(String, String)]) -> Self {
        let (events, waiting) = mpsc::channel(1);
        let (answered, answers) = mpsc::channel(1);
        let api = RuntimeApi { events: Mutex::new(waiting), answers: answered, requests: AtomicU64::new(0) };
        let routes = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(answer))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failure))
            // Lambda's own limit is 6 MB.
            .layer(DefaultBodyLimit::max(10_000_000))
            .with_state(Arc::new(api));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound port").to_string();
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let mut process = Command::new(binary(name))
            .env_clear()
            .envs(std::env::vars().filter(|(name, _)| name.starts_with("SSL_CERT")))
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .envs(settings.iter().cloned())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let log = Arc::new(StdMutex::new(Vec::new()));
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let kept = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                kept.lock().expect("no panic").push(line);
            }
        });
        Self { name: name.to_owned(), events, answers, log, process }
    }

    /// Hands an event to the function and waits for its answer.
    pub async fn invoke(&mut self, event: Value) -> Value {
        self.send(event).await;
        self.receive().await
    }

    /// Hands an event to the function.
    pub async fn send(&self, event: Value) {
        self.events.send(event).await.expect("the Runtime API runs");
    }

    /// Waits for the answer to the event before.
    pub async fn receive(&mut self) -> Value {
        let name = &self.name;
        let answer = timeout(Duration::from_secs(ANSWER_TIMEOUT_S), self.answers.recv());
        match answer.await.unwrap_or_else(|_| panic!("{name} did not answer")).expect("the Runtime API runs") {
            Ok(answer) => answer,
            Err(failure) => panic!("{name} reported a failed invocation: {failure}"),
        }
    }

    /// Waits for the process to end by itself, and gives its exit code and all that it logged.
    pub async fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = timeout(Duration::from_secs(ANSWER_TIMEOUT_S), self.process.wait());
        let status = status.await.expect("the function ends by itself").expect("a status");
        (status.code(), self.log_lines(0).await)
    }

    /// Everything logged so far, at least `count` lines.
    pub async fn log_lines(&self, count: usize) -> Vec<String> {
        for _ in 0..500 {
            let lines = self.log.lock().expect("no panic").clone();
            if lines.len() >= count {
                // What is still in the pipe comes within a moment.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return self.log.lock().expect("no panic").clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} did not log {count} lines", self.name)
    }
}

/// The binary of a function, as Cargo built it for this test.
fn binary(name: &str) -> &'static str {
    match name {
        "complete-task" => env!("CARGO_BIN_EXE_complete-task"),
        "create-task" => env!("CARGO_BIN_EXE_create-task"),
        "delete-task" => env!("CARGO_BIN_EXE_delete-task"),
        "get-task" => env!("CARGO_BIN_EXE_get-task"),
        "health" => env!("CARGO_BIN_EXE_health"),
        "list-tasks" => env!("CARGO_BIN_EXE_list-tasks"),
        "session" => env!("CARGO_BIN_EXE_session"),
        "update-task" => env!("CARGO_BIN_EXE_update-task"),
        _ => panic!("there is no function {name}"),
    }
}

async fn next(State(api): State<Arc<RuntimeApi>>) -> impl IntoResponse {
    let event = api.events.lock().await.recv().await;
    let Some(event) = event else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
    let request_id = format!("request-{}", api.requests.fetch_add(1, Ordering::Relaxed) + 1);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("lambda-runtime-aws-request-id", request_id.as_str()),
        ("lambda-runtime-deadline-ms", "9999999999999"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:123456789012:function:under-test"),
    ] {
        headers.insert(name, HeaderValue::from_str(value).expect("plain text"));
    }
    Ok((headers, Json(event)))
}

async fn answer(State(api): State<Arc<RuntimeApi>>, body: String) -> StatusCode {
    let _ = api.answers.send(serde_json::from_str(&body).map_err(|error| json!({"error": error.to_string()}))).await;
    StatusCode::ACCEPTED
}

async fn failure(State(api): State<Arc<RuntimeApi>>, Path(id): Path<String>, body: String) -> StatusCode {
    let _ = api.answers.send(Err(json!({"request": id, "error": body}))).await;
    StatusCode::ACCEPTED
}
