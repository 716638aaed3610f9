//! Runs the functions as local processes, like Lambda does. A call starts a process if none is idle, up to a limit per
//! function. A rebuilt function gets new processes.
mod builder;
mod runtime_api;
mod sources;

pub use self::{builder::Print, sources::Sources};

use self::{
    builder::{Builder, Generation},
    runtime_api::{Channel, RuntimeApi},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::Semaphore,
    time::timeout,
};
use xtask::place::root;

/// Why a function did not answer.
pub enum Failure {
    /// The compiler's messages.
    DoesNotCompile(String),
    /// The function exceeded the timeout, and its process was killed.
    TimedOut,
    /// The function reported an error, exited, or could not be started.
    Failed,
}

/// The local functions. Dropping them ends their processes.
pub struct Functions {
    builder: Builder,
    runtime_api: RuntimeApi,
    pools: Mutex<HashMap<String, Arc<Pool>>>,
    binaries: PathBuf,
    instances: usize,
    settings: BTreeMap<String, String>,
    timeout: Duration,
    print: Print,
}

/// The processes of one function.
struct Pool {
    permits: Semaphore,
    idle: Mutex<Vec<Process>>,
}

struct Process {
    generation: Generation,
    channel: Channel,
    child: Child,
}

impl Functions {
    /// Serves the functions in `binaries`, which have just been built from `sources`, with at most `instances`
    /// processes of each. `print` gets the output of the functions and the compiler.
    pub async fn start(
        binaries: PathBuf,
        sources: Sources,
        instances: usize,
        settings: BTreeMap<String, String>,
        timeout: Duration,
        print: Print,
    ) -> anyhow::Result<Self> {
        let builder = Builder::start(sources, xtask::build::functions()?, print.clone());
        let runtime_api = RuntimeApi::start().await?;
        Ok(Self { builder, runtime_api, pools: Mutex::default(), binaries, instances, settings, timeout, print })
    }

    /// Invokes a function and waits for its answer. Rebuilds it first if the sources have changed.
    pub async fn invoke(&self, function: &str, event: String) -> Result<Value, Failure> {
        let generation = self.builder.up_to_date(function).await.map_err(Failure::DoesNotCompile)?;
        let pool = self.pool(function);
        let _permit = pool.permits.acquire().await.map_err(|_| Failure::Failed)?;
        let mut process = match pool.take(generation) {
            Some(process) => process,
            None => self.start_process(function, generation).map_err(|error| {
                (self.print)(&format!("{function} cannot be started: {error}"));
                Failure::Failed
            })?,
        };
        let outcome = process.channel.invoke(event, self.timeout).await;
        let outcome = tokio::select! {
            outcome = timeout(self.timeout, outcome) => outcome.map_err(|_| Failure::TimedOut)?,
            status = process.child.wait() => {
                (self.print)(&match status {
                    Ok(status) => format!("{function} ended: {status}"),
                    Err(error) => format!("{function} is lost: {error}"),
                });
                return Err(Failure::Failed);
            }
        };
        pool.put(process);
        match outcome {
            Ok(Ok(answer)) => serde_json::from_slice(&answer).map_err(|_| Failure::Failed),
            _ => Err(Failure::Failed),
        }
    }

    fn pool(&self, function: &str) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Pool { permits: Semaphore::new(self.instances), idle: Mutex::default() });
        pools.entry(function.to_owned()).or_insert_with(new).clone()
    }

    fn start_process(&self, function: &str, generation: Generation) -> std::io::Result<Process> {
        let channel = self.runtime_api.open();
        let mut child = Command::new(self.binaries.join(function))
            .current_dir(root())
            .envs(&self.settings)
            .env("AWS_LAMBDA_RUNTIME_API", &channel.address)
            .env("AWS_LAMBDA_FUNCTION_NAME", function)
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
            // The functions must not have the owner's rights.
            .env_remove("DATABASE_URL_UNPOOLED")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        tokio::spawn(forward(child.stdout.take(), self.print.clone()));
        tokio::spawn(forward(child.stderr.take(), self.print.clone()));
        Ok(Process { generation, channel, child })
    }
}

impl Pool {
    /// Takes an idle process of this generation. Drops, and so kills, those of older ones.
    fn take(&self, generation: Generation) -> Option<Process> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|process| process.generation == generation && matches!(process.child.try_wait(), Ok(None)));
        idle.pop()
    }

    fn put(&self, process: Process) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(process);
    }
}

async fn forward(pipe: Option<impl AsyncRead + Unpin>, print: Print) {
    let Some(pipe) = pipe else { return };
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        print(&line);
    }
}
