//! Runs `cargo xtask dev` and checks that no process is left after it.
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

/// Timeout until the API is ready, in seconds. It includes building the functions.
const READY_TIMEOUT_S: u64 = 1200;
/// Timeout of the end after Ctrl-C, in seconds.
const END_TIMEOUT_S: u64 = 60;

/// A running `cargo xtask dev` in its own folder.
pub struct Dev {
    process: Child,
    folder: PathBuf,
}

impl Dev {
    pub fn start(folder: &Path, port: u16, settings: &[(&str, &str)], flags: &[&str]) -> Self {
        Self::start_with(command(), folder, port, settings, flags)
    }

    /// Like [`Dev::start`], with the `cargo xtask` of another folder.
    pub fn start_with(
        mut command: Command,
        folder: &Path,
        port: u16,
        settings: &[(&str, &str)],
        flags: &[&str],
    ) -> Self {
        let process = command
            .args(["dev", "--port", &port.to_string(), "--folder"])
            .arg(folder)
            .args(flags)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, folder: folder.to_owned() }
    }

    /// Waits for the end and returns the exit code.
    pub fn ended(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(END_TIMEOUT_S);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "cargo xtask dev does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for the env file and lets a shell source it.
    pub fn environment(&mut self) -> HashMap<String, String> {
        let file = self.folder.join("env");
        let until = Instant::now() + Duration::from_secs(READY_TIMEOUT_S);
        while !file.exists() {
            assert_eq!(self.process.try_wait().unwrap(), None, "cargo xtask dev ended");
            assert!(Instant::now() < until, "cargo xtask dev is not ready");
            std::thread::sleep(Duration::from_millis(100));
        }
        let script = format!(". {}; env -0", file.display());
        let output = Command::new("sh").args(["-c", &script]).env_clear().output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split('\0')
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    /// Sends SIGINT (Ctrl-C), waits for the end, and checks that no started process is left.
    pub fn stop(mut self) {
        let before = processes();
        let pid = self.process.id();
        let started: Vec<_> =
            before.iter().filter(|process| descends(process, pid, &before)).map(|process| process.pid).collect();
        assert!(started.len() >= 10, "at least the functions should be running: {started:?}");
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(self.ended(), Some(130));
        // A killed process ends a moment later.
        let until = Instant::now() + Duration::from_secs(5);
        loop {
            let left: Vec<_> = processes().into_iter().filter(|process| started.contains(&process.pid)).collect();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "still running: {left:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // After a failed test. `cargo xtask dev` stops what it started.
        if matches!(self.process.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), Signal::SIGTERM);
            let _ = self.process.wait();
        }
    }
}

/// Returns `cargo xtask`, without the settings from the environment of the tests.
pub fn command() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["xtask"]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for name in [
        "DATABASE_URL",
        "DATABASE_URL_UNPOOLED",
        "BETTER_AUTH_SECRET",
        "BETTER_AUTH_SECRETS",
        "BETTER_AUTH_URL",
        "TRUSTED_ORIGINS",
    ] {
        command.env_remove(name);
    }
    command
}

#[derive(Debug)]
struct Process {
    pid: u32,
    parent: u32,
}

fn processes() -> Vec<Process> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // A zombie process has already ended.
    let alive = fields.filter(|fields| !fields[2].starts_with('Z'));
    alive.map(|fields| Process { pid: fields[0].parse().unwrap(), parent: fields[1].parse().unwrap() }).collect()
}

fn descends(process: &Process, from: u32, all: &[Process]) -> bool {
    process.parent == from
        || all.iter().find(|other| other.pid == process.parent).is_some_and(|parent| descends(parent, from, all))
}

/// Returns a free port whose successor is free too, below the range of outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 10_000 + u16::try_from(std::process::id() % 500).unwrap() * 20;
    (0..100)
        .map(|_| first + NEXT.fetch_add(2, Ordering::Relaxed))
        .find(|port| is_free(*port) && is_free(port + 1))
        .expect("two free ports")
}

pub fn new_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    folder
}
