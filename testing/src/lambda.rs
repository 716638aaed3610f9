//! A Lambda Runtime API, and one real function binary that polls it.
//!
//! Written by hand because the emulators that exist run one call at a time from a command line of their own; the protocol
//! is two routes (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
use crate::logs::keep;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt as _,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::{
    process::Stdio,
    sync::{
        Arc, Mutex as StdMutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::{Mutex, mpsc},
    time::timeout,
};

/// How long a function may take to answer before the test gives up, in seconds: no measure of speed.
const ANSWER_TIMEOUT_S: u64 = 30;

/// How many of the last lines are at hand, of which tests ask for a few.
const MAX_LOG_LINES: usize = 2_000;

/// What a function gave for an event: an answer, or the error that it reported.
pub type Invoked = Result<Value, Value>;

/// One running instance of a function.
pub struct Lambda {
    name: String,
    timeout: Duration,
    events: mpsc::Sender<(Vec<u8>, u128)>,
    answers: mpsc::Receiver<Invoked>,
    log: Arc<StdMutex<Vec<String>>>,
    process: Child,
}

struct RuntimeApi {
    events: Mutex<mpsc::Receiver<(Vec<u8>, u128)>>,
    answers: mpsc::Sender<Invoked>,
    requests: AtomicU64,
}

impl Lambda {
    /// Starts a binary with the environment that Lambda would give it, and `settings`.
    pub async fn start(program: &str, settings: &[(String, String)]) -> Self {
        Self::start_under(&[], program, settings).await
    }

    /// As [`Lambda::start`], by the command of a tool that watches it: one that becomes the binary, or passes signals on to it.
    pub async fn start_under(tool: &[&str], program: &str, settings: &[(String, String)]) -> Self {
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
        // Without, an answer of several packets waits for the other side's acknowledgement.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        tokio::spawn(async move { axum::serve(listener, routes).await });

        let name = program.rsplit('/').next().unwrap_or(program);
        let command = [tool, &[program]].concat();
        let mut process = Command::new(command[0])
            .args(&command[1..])
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", address)
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
            .envs(settings.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        let log = Arc::new(StdMutex::new(Vec::new()));
        // Lambda takes both for the log.
        tokio::spawn(read_log(name.to_owned(), process.stdout.take().expect("a pipe"), log.clone()));
        tokio::spawn(read_log(name.to_owned(), process.stderr.take().expect("a pipe"), log.clone()));
        Self { name: name.to_owned(), timeout: Duration::from_secs(ANSWER_TIMEOUT_S), events, answers, log, process }
    }

    /// Sets the timeout that the function is told, as a template would.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Hands an event to the function and waits for its answer.
    pub async fn invoke(&mut self, event: Value) -> Value {
        self.send(event).await;
        self.receive().await
    }

    /// As [`Lambda::invoke`], for a function that may report an error.
    pub async fn try_invoke(&mut self, event: Value) -> Invoked {
        self.send(event).await;
        self.try_receive().await
    }

    /// As [`Lambda::try_invoke`], with bytes that need not be an event.
    pub async fn try_invoke_bytes(&mut self, event: Vec<u8>) -> Invoked {
        self.send_bytes(event).await;
        self.try_receive().await
    }

    /// Hands an event to the function.
    pub async fn send(&self, event: Value) {
        self.send_bytes(event.to_string().into_bytes()).await;
    }

    async fn send_bytes(&self, event: Vec<u8>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
        self.events.send((event, (now + self.timeout).as_millis())).await.expect("the Runtime API runs");
    }

    /// Waits for the answer to the event before.
    pub async fn receive(&mut self) -> Value {
        match self.try_receive().await {
            Ok(answer) => answer,
            Err(failure) => panic!("{} reported a failed invocation: {failure}", self.name),
        }
    }

    async fn try_receive(&mut self) -> Invoked {
        let answer = timeout(Duration::from_secs(ANSWER_TIMEOUT_S), self.answers.recv()).await;
        answer.unwrap_or_else(|_| panic!("{} did not answer", self.name)).expect("the Runtime API runs")
    }

    /// The environment that the process has now.
    pub fn environment(&self) -> Vec<String> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.process_id())).expect("Linux tells it");
        environment.split(|byte| *byte == 0).map(|entry| String::from_utf8_lossy(entry).into_owned()).collect()
    }

    /// Asks the process to end, as Lambda does in its shutdown phase.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Holds the process still, as Lambda does between two invocations.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process_id()).expect("a process's id");
        kill(Pid::from_raw(pid), signal).expect("it runs");
    }

    /// The process's id.
    pub fn process_id(&self) -> u32 {
        self.process.id().expect("it runs")
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

async fn read_log(name: String, pipe: impl AsyncRead + Unpin, log: Arc<StdMutex<Vec<String>>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        keep(&name, &line);
        let mut log = log.lock().expect("no panic");
        // A process that is driven for long: the file has it all.
        if log.len() >= MAX_LOG_LINES {
            log.drain(..MAX_LOG_LINES / 2);
        }
        log.push(line);
    }
}

async fn next(State(api): State<Arc<RuntimeApi>>) -> impl IntoResponse {
    let event = api.events.lock().await.recv().await;
    let Some((event, deadline_ms)) = event else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
    let request_id = format!("request-{}", api.requests.fetch_add(1, Ordering::Relaxed) + 1);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("lambda-runtime-aws-request-id", request_id.as_str()),
        ("lambda-runtime-deadline-ms", deadline_ms.to_string().as_str()),
        ("lambda-runtime-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:123456789012:function:under-test"),
    ] {
        headers.insert(name, HeaderValue::from_str(value).expect("plain text"));
    }
    Ok((headers, event))
}

async fn answer(State(api): State<Arc<RuntimeApi>>, body: String) -> StatusCode {
    let _ = api.answers.send(serde_json::from_str(&body).map_err(|error| json!({"error": error.to_string()}))).await;
    StatusCode::ACCEPTED
}

async fn failure(State(api): State<Arc<RuntimeApi>>, Path(id): Path<String>, body: String) -> StatusCode {
    let _ = api.answers.send(Err(json!({"request": id, "error": body}))).await;
    StatusCode::ACCEPTED
}
