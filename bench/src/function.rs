//! One function process, and the Lambda Runtime API that serves it
//! (docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html).
//!
//! The tests have another Runtime API, built on a web framework. This one blocks on plain sockets, because its own
//! overhead is part of every measured time and makes programs look more alike than they are.
use crate::{cpus::Cpus, http::read_request, quota::Quota};
use anyhow::{Context as _, Result, bail};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::{BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Maximum wait for a process to poll or to respond.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of checks whether a silent process has ended.
const EXIT_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The memory size that a function is told if none is given, in MB.
const MEMORY_MB: u32 = 128;

/// The parameters to start a function process.
pub struct Start<'s> {
    /// The program and its arguments.
    pub command: &'s [String],
    /// The working folder.
    pub folder: &'s Path,
    /// The value of Lambda's `_HANDLER`.
    pub handler: &'s str,
    /// Environment variables.
    pub environment: &'s [(&'static str, String)],
    /// The file for its output.
    pub log: &'s Path,
    /// The CPU share after Init, as that of a memory size in MB. `None`: no limit.
    pub share: Option<(&'s Quota, u32)>,
    /// The CPUs. `None`: any.
    pub cpus: Option<Cpus>,
}

/// A running process. Dropping it kills the process.
pub struct Function {
    process: Child,
    clock: ClockId,
    requests: Receiver<Request>,
    waiting: Option<TcpStream>,
    events: u64,
    /// Time from the start to the first request for an event, in ms.
    pub init_ms: f64,
    /// CPU time of Init, in ms.
    pub init_cpu_ms: f64,
}

/// The result of one event.
pub struct Invocation {
    /// Time from sending the event to receiving the response, in ms.
    pub latency_ms: f64,
    /// The process's CPU time until it asks for the next event, in ms.
    pub cpu_ms: f64,
    pub answer: Vec<u8>,
}

/// A request of the process to the Runtime API.
enum Request {
    Next(Instant, TcpStream),
    Answer(Instant, Vec<u8>),
    Failure(String),
}

impl Function {
    /// Starts a process and waits until it asks for its first event.
    ///
    /// # Errors
    /// If it cannot be started, exits, or reports an initialization error.
    pub fn start(start: &Start) -> Result<Self> {
        let Start { command, folder, handler, environment, log, share, cpus } = start;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?.to_string();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let sender = sender.clone();
                thread::spawn(move || serve(stream, &sender));
            }
        });

        let (program, arguments) = command.split_first().context("a command has a program")?;
        let log = File::options().create(true).append(true).open(log)?;
        let memory_mb = share.map_or(MEMORY_MB, |(_, memory_mb)| memory_mb).to_string();
        let folder_text = folder.display().to_string();
        let mut process = Command::new(program);
        process.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        process.env_clear().envs([
            ("AWS_DEFAULT_REGION", "eu-central-1"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory_mb),
            ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/bench"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/01/01/[$LATEST]0123456789abcdef"),
            ("AWS_LAMBDA_RUNTIME_API", &address),
            ("AWS_REGION", "eu-central-1"),
            ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
            ("LAMBDA_TASK_ROOT", &folder_text),
            ("LANG", "en_US.UTF-8"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("TZ", ":UTC"),
            ("_HANDLER", handler),
        ]);
        process.envs(environment.iter().cloned());
        let began = Instant::now();
        let mut spawn = || process.spawn();
        let process = match cpus {
            Some(cpus) => cpus.on_measured_cpu(spawn)?,
            None => spawn(),
        };
        let process = process.with_context(|| format!("{program} cannot be started"))?;
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(process.id().try_into()?))?;
        let mut function = Self { process, clock, requests, waiting: None, events: 0, init_ms: 0.0, init_cpu_ms: 0.0 };
        let ready = function.wait_for_request()?;
        function.init_ms = milliseconds(ready - began);
        function.init_cpu_ms = function.cpu_ms()?;
        if let Some((quota, memory_mb)) = share {
            quota.add(function.process.id())?;
            quota.limit(*memory_mb)?;
        }
        Ok(function)
    }

    /// Sends an event, and waits for the response and for the process's next poll.
    ///
    /// # Errors
    /// If the invocation fails or the process exits.
    pub fn invoke(&mut self, event: &str) -> Result<Invocation> {
        self.events += 1;
        let deadline = SystemTime::now().duration_since(UNIX_EPOCH)? + TIMEOUT;
        let message = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
             Lambda-Runtime-Aws-Request-Id: 8476a536-e9f4-11e8-9739-{:012}\r\n\
             Lambda-Runtime-Deadline-Ms: {}\r\n\
             Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:eu-central-1:123456789012:function:bench\r\n\
             Lambda-Runtime-Trace-Id: Root=1-65f00000-0123456789abcdef01234567;Parent=0123456789abcdef;Sampled=0\r\n\
             Content-Length: {}\r\n\r\n{event}",
            self.events,
            deadline.as_millis(),
            event.len()
        );
        let mut stream = self.waiting.take().context("the process has not asked for an event")?;
        let cpu_ms = self.cpu_ms()?;
        let sent = Instant::now();
        stream.write_all(message.as_bytes())?;
        let (answered, answer) = match self.receive()? {
            Request::Answer(at, answer) => (at, answer),
            Request::Failure(why) => bail!("the invocation failed: {why}"),
            Request::Next(..) => bail!("the process asked for an event before it had answered the last"),
        };
        self.wait_for_request()?;
        Ok(Invocation { latency_ms: milliseconds(answered - sent), cpu_ms: self.cpu_ms()? - cpu_ms, answer })
    }

    /// Returns the process's peak memory, in MB of 2^20 bytes.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn peak_memory_mb(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("the process has ended")?;
        let kilobytes: f64 = peak.split_whitespace().next().context("a number")?.parse()?;
        Ok(kilobytes / 1024.0)
    }

    fn cpu_ms(&self) -> Result<f64> {
        Ok(milliseconds(Duration::from(clock_gettime(self.clock)?)))
    }

    fn receive(&mut self) -> Result<Request> {
        let began = Instant::now();
        while began.elapsed() < TIMEOUT {
            // Checked before reading the channel, so that the last request of a process that exits is not lost.
            let end = self.process.try_wait()?;
            match (self.requests.recv_timeout(EXIT_CHECK_INTERVAL), end) {
                (Ok(request), _) => return Ok(request),
                (Err(_), Some(status)) => bail!("the process ended ({status})"),
                (Err(_), None) => {}
            }
        }
        bail!("the process does not answer")
    }

    fn wait_for_request(&mut self) -> Result<Instant> {
        match self.receive()? {
            Request::Next(at, stream) => {
                self.waiting = Some(stream);
                Ok(at)
            }
            Request::Failure(why) => bail!("the process cannot begin: {why}"),
            Request::Answer(..) => bail!("the process answered an event that it was not given"),
        }
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Serves one connection until it closes.
fn serve(stream: TcpStream, sender: &Sender<Request>) -> Option<()> {
    const ACCEPTED: &[u8] =
        b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"status\":\"OK\"}\n";
    stream.set_nodelay(true).ok()?;
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (path, body) = read_request(&mut reader).ok()?.into_path_and_body();
        let at = Instant::now();
        let request = if path.ends_with("/next") {
            // `invoke` sends the event on this stream.
            Request::Next(at, writer.try_clone().ok()?)
        } else if path.ends_with("/response") {
            Request::Answer(at, body)
        } else {
            Request::Failure(String::from_utf8_lossy(&body).into_owned())
        };
        let is_answered_now = !matches!(request, Request::Next(..));
        sender.send(request).ok()?;
        if is_answered_now {
            writer.write_all(ACCEPTED).ok()?;
        }
    }
}
