//! A Lambda Runtime API, and one real function binary that polls it.
//!
//! Hand-written because the existing emulators run one call at a time from their own command line. The protocol is
//! small (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
use crate::logs::append_line;
use axum::{
    Router,
    extract::{self, DefaultBodyLimit, State},
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
    path::Path,
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

/// Seconds to wait for a response before the test fails. It is not a performance limit.
const ANSWER_TIMEOUT_S: u64 = 30;

/// The most log lines to keep in memory. Tests read only the last few.
const MAX_LOG_LINES: usize = 2_000;

/// The outcome of an invocation: a response, or the error that the function reported.
pub type Invoked = Result<Value, Value>;

/// Returns the path of the program to test: `built`, which Cargo made for this test, or the program of the same name in
/// the folder that `TASKS_TEST_PROGRAMS` names.
pub fn program(built: &str) -> String {
    let (Some(folder), Some(name)) = (std::env::var_os("TASKS_TEST_PROGRAMS"), Path::new(built).file_name()) else {
        return built.to_owned();
    };
    Path::new(&folder).join(name).display().to_string()
}

/// A running function process.
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
    /// Starts a binary with Lambda's environment variables and `settings`.
    pub async fn start(program: &str, settings: &[(String, String)]) -> Self {
        Self::start_under(&[], program, settings).await
    }

    /// Like [`Lambda::start`], under a tool such as strace or Valgrind. The tool must become the binary, or forward
    /// signals to it.
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
        // Without TCP_NODELAY, a response of several packets waits for the other side's acknowledgement.
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
        // Lambda logs both streams.
        tokio::spawn(read_log(name.to_owned(), process.stdout.take().expect("a pipe"), log.clone()));
        tokio::spawn(read_log(name.to_owned(), process.stderr.take().expect("a pipe"), log.clone()));
        Self { name: name.to_owned(), timeout: Duration::from_secs(ANSWER_TIMEOUT_S), events, answers, log, process }
    }

    /// Sets the timeout that the function's deadline is computed from, like `Timeout` in template.yaml.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends an event to the function and waits for its response.
    pub async fn invoke(&mut self, event: Value) -> Value {
        self.send(event).await;
        self.receive().await
    }

    /// Like [`Lambda::invoke`], for a function that may report an error.
    pub async fn try_invoke(&mut self, event: Value) -> Invoked {
        self.send(event).await;
        self.try_receive().await
    }

    /// Like [`Lambda::try_invoke`], with bytes that need not be a valid event.
    pub async fn try_invoke_bytes(&mut self, event: Vec<u8>) -> Invoked {
        self.send_bytes(event).await;
        self.try_receive().await
    }

    /// Sends an event to the function, without waiting for its response.
    pub async fn send(&self, event: Value) {
        self.send_bytes(event.to_string().into_bytes()).await;
    }

    async fn send_bytes(&self, event: Vec<u8>) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970");
        self.events.send((event, (now + self.timeout).as_millis())).await.expect("the Runtime API runs");
    }

    /// Waits for the response to an event that was sent.
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

    /// Sends SIGTERM, as Lambda does in its shutdown phase.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Stops the process with SIGSTOP, as Lambda freezes it between two invocations.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Continues a frozen process with SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process_id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the process runs");
    }

    pub fn process_id(&self) -> u32 {
        self.process.id().expect("the process runs")
    }

    /// Waits for the process to exit, and returns its exit code and all that it logged.
    pub async fn ended(mut self) -> (Option<i32>, Vec<String>) {
        let status = timeout(Duration::from_secs(ANSWER_TIMEOUT_S), self.process.wait());
        let status = status.await.expect("the function exits").expect("an exit status");
        (status.code(), self.log_lines(0).await)
    }

    /// Waits for at least `count` log lines and returns everything logged so far.
    pub async fn log_lines(&self, count: usize) -> Vec<String> {
        for _ in 0..500 {
            let lines = self.log.lock().expect("no panic").clone();
            if lines.len() >= count {
                // Lines that are still in the pipe arrive within a moment.
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
        append_line(&name, &line);
        let mut log = log.lock().expect("no panic");
        // Long runs: drop the older half. The log file has everything.
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

async fn failure(
    State(api): State<Arc<RuntimeApi>>,
    extract::Path(id): extract::Path<String>,
    body: String,
) -> StatusCode {
    let _ = api.answers.send(Err(json!({"request": id, "error": body}))).await;
    StatusCode::ACCEPTED
}
