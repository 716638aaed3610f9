//! A Lambda Runtime API (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html) for any number of processes. Each
//! process has its own path prefix, which identifies it.
use anyhow::Result;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State},
    http::{HeaderName, StatusCode},
    response::IntoResponse,
    routing::{get, post},
    serve::ListenerExt as _,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    net::TcpListener,
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    task::JoinHandle,
};

/// Maximum size of an answer, in bytes. Lambda's limit is 6 MB.
const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;

/// A function's answer, or the error that it reported.
pub type Outcome = Result<Bytes, Bytes>;

/// An event with the sender of its outcome.
struct Invocation {
    event: String,
    deadline_ms: u128,
    outcome: oneshot::Sender<Outcome>,
}

/// The running API. Dropping it stops it.
pub struct RuntimeApi {
    address: String,
    processes: Arc<Processes>,
    task: JoinHandle<()>,
}

/// The processes with an open channel, by number.
#[derive(Default)]
struct Processes {
    next: AtomicU64,
    all: Mutex<HashMap<u64, Arc<Process>>>,
}

struct Process {
    invocations: AsyncMutex<mpsc::Receiver<Invocation>>,
    /// Where to send the outcome of the current event.
    outcome: Mutex<Option<oneshot::Sender<Outcome>>>,
}

/// The channel to one process. Dropping it makes the API refuse the process.
pub struct Channel {
    number: u64,
    /// The value of `AWS_LAMBDA_RUNTIME_API`.
    pub address: String,
    invocations: mpsc::Sender<Invocation>,
    processes: Arc<Processes>,
}

impl RuntimeApi {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start() -> Result<Self> {
        let processes = Arc::<Processes>::default();
        let routes = Router::new()
            .route("/{process}/2018-06-01/runtime/invocation/next", get(next))
            .route("/{process}/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/{process}/2018-06-01/runtime/invocation/{id}/error", post(error))
            .layer(DefaultBodyLimit::max(MAX_ANSWER_BYTES))
            .with_state(processes.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        // Without TCP_NODELAY, an answer of several packets waits for the peer's acknowledgement.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { address, processes, task })
    }

    /// Opens a channel for one more process.
    pub fn open(&self) -> Channel {
        let (sender, receiver) = mpsc::channel(1);
        let number = self.processes.next.fetch_add(1, Ordering::Relaxed);
        let process = Process { invocations: AsyncMutex::new(receiver), outcome: Mutex::default() };
        self.processes.lock().insert(number, Arc::new(process));
        let address = format!("http://{}/{number}", self.address);
        Channel { number, address, invocations: sender, processes: self.processes.clone() }
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Channel {
    /// Sends the process an event with a deadline of `timeout` from now. The receiver fails if the channel closes
    /// first.
    pub async fn invoke(&self, event: String, timeout: Duration) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let deadline_ms = (now + timeout).as_millis();
        let _ = self.invocations.send(Invocation { event, deadline_ms, outcome: sender }).await;
        receiver
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.processes.lock().remove(&self.number);
    }
}

impl Processes {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Process>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, number: u64) -> Result<Arc<Process>, StatusCode> {
        self.lock().get(&number).cloned().ok_or(StatusCode::GONE)
    }

    fn finish(&self, number: u64, outcome: Outcome) -> StatusCode {
        let Ok(process) = self.find(number) else { return StatusCode::GONE };
        let waiting = process.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        match waiting {
            Some(waiting) => {
                // The receiver may have timed out.
                let _ = waiting.send(outcome);
                StatusCode::ACCEPTED
            }
            None => StatusCode::BAD_REQUEST,
        }
    }
}

async fn next(State(processes): State<Arc<Processes>>, Path(number): Path<u64>) -> impl IntoResponse {
    let process = processes.find(number)?;
    let invocation = process.invocations.lock().await.recv().await.ok_or(StatusCode::GONE)?;
    *process.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(invocation.outcome);
    let headers = [
        ("lambda-runtime-aws-request-id", format!("local-{:x}", invocation.deadline_ms)),
        ("lambda-runtime-deadline-ms", invocation.deadline_ms.to_string()),
        ("lambda-runtime-invoked-function-arn", "arn:aws:lambda:local:000000000000:function:local".to_owned()),
    ];
    Ok::<_, StatusCode>((headers.map(|(name, value)| (HeaderName::from_static(name), value)), invocation.event))
}

async fn response(
    State(processes): State<Arc<Processes>>,
    Path((number, _)): Path<(u64, String)>,
    body: Bytes,
) -> StatusCode {
    processes.finish(number, Ok(body))
}

async fn error(
    State(processes): State<Arc<Processes>>,
    Path((number, _)): Path<(u64, String)>,
    body: Bytes,
) -> StatusCode {
    processes.finish(number, Err(body))
}
