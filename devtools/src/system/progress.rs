//! Progress of long-running programs: announced with the expected time, shown while they run, and timed for the next
//! run.
use super::process::{Running, tail};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::Signal;
use std::{
    io::IsTerminal as _,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{process::Command, time::interval};
use xtask::{
    durations::{Durations, Short},
    step,
};

/// Interval between progress lines without a terminal, in seconds.
const LINE_EVERY_S: u64 = 15;
/// Maximum number of output lines that the error of a failed program shows.
const MAX_FAILURE_LINES: usize = 40;

/// Runs a long-running program and hides its output unless it fails. Prints `what` first, with the duration of the last
/// run or else `usual`. Durations are stored under `name`.
pub async fn run_long(what: &str, name: &str, usual: &str, command: &mut Command) -> Result<()> {
    step(format!("{what} ({})", Durations::read().expectation(name, usual)));
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    let output = Arc::new(Mutex::new(String::new()));
    let lines = output.clone();
    // One pipe for standard output and standard error keeps their order.
    let (reader, writer) = std::io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut running = Running::start(command, Signal::SIGTERM)?;
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let reading = std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(reader)).map_while(Result::ok) {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_str(&line);
            lines.push('\n');
        }
    });
    let status = {
        let _progress = Progress::start(what);
        running.wait().await?
    };
    if !status.success() {
        let _ = reading.join();
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        bail!("{program} failed ({status}):\n{}", tail(&output, MAX_FAILURE_LINES));
    }
    Durations::record(name, began.elapsed());
    Ok(())
}

/// Shows progress until dropped: a spinner on a terminal, else a line every [`LINE_EVERY_S`].
enum Progress {
    Spinner(ProgressBar),
    Lines(tokio::task::JoinHandle<()>),
}

impl Progress {
    fn start(what: &str) -> Self {
        if std::io::stderr().is_terminal() {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("    {spinner} {elapsed}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(120));
            return Self::Spinner(spinner);
        }
        let what = what.to_owned();
        Self::Lines(tokio::spawn(async move {
            let began = Instant::now();
            let mut ticks = interval(Duration::from_secs(LINE_EVERY_S));
            ticks.tick().await;
            loop {
                ticks.tick().await;
                eprintln!("    {what}: {} so far", Short(began.elapsed()));
            }
        }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        match self {
            Self::Spinner(spinner) => spinner.finish_and_clear(),
            Self::Lines(lines) => lines.abort(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_shows_what_the_program_wrote() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; echo second >&2; exit 3"]);
        let error = run_long("Failing", "failing", "a moment", &mut command).await.unwrap_err().to_string();
        assert!(error.starts_with("sh failed (exit status: 3):\nfirst\nsecond"), "{error}");
    }
}
