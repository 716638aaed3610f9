//! Runs other programs and stops them when this process ends, even after a failure or Ctrl-C.
use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use std::{
    collections::HashSet,
    ffi::OsStr,
    net::TcpStream,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::sleep,
};

/// Seconds that a program may take to end after the stop signal.
const STOP_TIMEOUT_S: u64 = 15;

/// A running program with its descendants. Dropping it stops them all and waits until they have ended.
pub struct Running {
    name: String,
    child: Child,
    pid: Pid,
    stop_signal: Signal,
}

impl Running {
    /// Starts `command` in its own process group, so that Ctrl-C in the terminal reaches only us.
    pub fn start(command: &mut Command, stop_signal: Signal) -> Result<Self> {
        Self::spawn(command.stdin(Stdio::null()).process_group(0), stop_signal)
    }

    /// Starts `command` in our process group, so that it can read from the terminal.
    pub fn start_attended(command: &mut Command, stop_signal: Signal) -> Result<Self> {
        Self::spawn(command, stop_signal)
    }

    fn spawn(command: &mut Command, stop_signal: Signal) -> Result<Self> {
        let name = command.as_std().get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let pid = child.id().context("the program ended at once")?;
        Ok(Self { name, child, pid: Pid::from_raw(i32::try_from(pid)?), stop_signal })
    }

    /// Fails if the program has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }

    /// Calls `read` with each line of the program's standard output, which must be a pipe.
    pub fn read_lines(&mut self, read: impl Fn(&str) + Send + 'static) -> Result<JoinHandle<()>> {
        let output = self.child.stdout.take().context("the standard output is no pipe")?;
        Ok(tokio::spawn(async move {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                read(&String::from_utf8_lossy(&line));
            }
        }))
    }

    /// Sends the program a signal. Does nothing if it has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(self.pid, signal);
    }

    /// Waits until the program listens on a port of 127.0.0.1. Fails if it ends, or takes longer than `within`.
    pub async fn wait_for_port(&mut self, port: u16, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        while let Err(error) = TcpStream::connect(("127.0.0.1", port)) {
            self.check()?;
            if Instant::now() > until {
                return Err(error).with_context(|| format!("{} does not listen on 127.0.0.1:{port}", self.name));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until the program ends.
    pub async fn wait(&mut self) -> Result<std::process::ExitStatus> {
        Ok(self.child.wait().await?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut rest = descendants(self.pid);
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            if self.stop_signal == Signal::SIGKILL {
                // A stopped program does not report errors about its killed children.
                let _ = kill(self.pid, Signal::SIGSTOP);
                for pid in &rest {
                    let _ = kill(*pid, Signal::SIGKILL);
                }
            }
            let _ = kill(self.pid, self.stop_signal);
            let until = Instant::now() + Duration::from_secs(STOP_TIMEOUT_S);
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
                rest.extend(descendants(self.pid));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // Stop the descendants that the program left behind.
        let _ = killpg(self.pid, Signal::SIGKILL);
        for pid in &rest {
            let _ = kill(*pid, Signal::SIGTERM);
        }
        let until = Instant::now() + Duration::from_secs(2);
        while rest.iter().any(|pid| kill(*pid, None).is_ok()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        for pid in &rest {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let _ = self.child.try_wait();
    }
}

/// Returns all descendants of a process, from `ps`, which works on Linux and macOS.
fn descendants(ancestor: Pid) -> HashSet<Pid> {
    let Ok(output) = std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output() else {
        return HashSet::new();
    };
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs: Vec<(i32, i32)> = table
        .lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        })
        .collect();
    let mut found = HashSet::new();
    let mut parents = vec![ancestor.as_raw()];
    while let Some(parent) = parents.pop() {
        for (pid, _) in pairs.iter().filter(|(_, ppid)| *ppid == parent) {
            if found.insert(Pid::from_raw(*pid)) {
                parents.push(*pid);
            }
        }
    }
    found
}

/// Runs a program with our standard output. Fails if the program fails.
pub async fn run<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Result<()> {
    run_command(Command::new(program).args(args)).await
}

/// Like [`run`], for a prepared command.
pub async fn run_command(command: &mut Command) -> Result<()> {
    let words = command.as_std();
    let line: Vec<_> =
        std::iter::once(words.get_program()).chain(words.get_args()).map(OsStr::to_string_lossy).collect();
    let line = line.join(" ");
    let status = Running::start(command, Signal::SIGTERM)?.wait().await?;
    if !status.success() {
        bail!("'{line}' failed ({status})");
    }
    Ok(())
}

/// Runs `cargo test` with our standard output. The error names the failed tests.
pub async fn run_tests(command: &mut Command) -> Result<()> {
    let failed = Arc::new(Mutex::new(Vec::new()));
    let names = failed.clone();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let mut running = Running::start(command.stdout(Stdio::piped()), Signal::SIGTERM)?;
    let reading = running.read_lines(move |line| {
        println!("{line}");
        // "test access::nobody_gets_in ... FAILED"
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            names.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        }
        counted.fetch_add(test_count(line), Ordering::Relaxed);
    })?;
    let status = running.wait().await?;
    reading.await?;
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match (status.success(), failed.is_empty()) {
        (true, _) if count.load(Ordering::Relaxed) == 0 => {
            bail!("no test has the name that was asked for, so none ran")
        }
        (true, _) => Ok(()),
        (false, true) => bail!("the tests do not compile, or ended early ({status})"),
        (false, false) => bail!("failed: {}; one of them alone: --filter {}", failed.join(", "), failed[0]),
    }
}

/// How many tests cargo's line "running 12 tests" announces; 0 for other lines.
fn test_count(line: &str) -> usize {
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        ["running", count, "test" | "tests"] => count.parse().unwrap_or(0),
        _ => 0,
    }
}

/// Returns the last `count` lines of a text.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Formats a command for a shell, with its folder, environment variables and arguments.
pub fn shell_line(command: &Command) -> String {
    let command = command.as_std();
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        let Some(value) = value.map(OsStr::to_string_lossy) else { continue };
        let name = name.to_string_lossy();
        // For PATH, show only what precedes the caller's own value, which differs from shell to shell.
        let own = std::env::var(&*name).ok().filter(|_| name == "PATH");
        match own.and_then(|own| value.strip_suffix(&own).map(|prefix| quoted(prefix.trim_end_matches(':')))) {
            Some(prefix) if prefix == "''" => {}
            Some(prefix) => words.push(format!("{name}={prefix}:\"${name}\"")),
            None => words.push(format!("{name}={}", quoted(&value))),
        }
    }
    let program_and_args = std::iter::once(command.get_program()).chain(command.get_args());
    words.extend(program_and_args.map(|word| quoted(&word.to_string_lossy())));
    let line = words.join(" ");
    match command.get_current_dir() {
        Some(folder) => format!("(cd {} && {line})", quoted(&folder.to_string_lossy())),
        None => line,
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    shell_quoted(word)
}

/// Quotes any text as a single shell word.
pub fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_the_shell_keeps_every_word_as_it_is() {
        let words = ["plain", "", "two words", "it's", "A=\"$HOME\"", "a\\b"];
        let mut command = Command::new("printf");
        command.arg("%s\n").args(words);
        let line = shell_line(&command);
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), words.map(|word| format!("{word}\n")).concat(), "{line}");
    }
}
