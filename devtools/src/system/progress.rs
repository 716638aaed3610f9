//! What is done and takes long: said before, shown while it lasts, and timed for the next time.
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

/// How often a line is written where there is no terminal, in seconds.
const LINE_EVERY_S: u64 = 15;
/// How many lines of its output are shown where a program fails.
const LINES_OF_A_FAILURE: usize = 40;

/// Runs a program that takes long and whose output nobody needs unless it fails. `what` is printed first, with the time that it took
/// the last time, or `usual`. It is remembered by `name`.
pub async fn run_long(what: &str, name: &str, usual: &str, command: &mut Command) -> Result<()> {
    step(format!("{what} ({})", Durations::read().expectation(name, usual)));
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let began = Instant::now();
    let output = Arc::new(Mutex::new(String::new()));
    let lines = output.clone();
    // Both kinds of output in their order.
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
        let _shown = Shown::start(what);
        running.wait().await?
    };
    if !status.success() {
        let _ = reading.join();
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        bail!("{program} failed ({status}):\n{}", tail(&output, LINES_OF_A_FAILURE));
    }
    Durations::record(name, began.elapsed());
    Ok(())
}

/// A spinner on a terminal, a line now and then elsewhere; until it is dropped.
enum Shown {
    Spinner(ProgressBar),
    Lines(tokio::task::JoinHandle<()>),
}

impl Shown {
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

impl Drop for Shown {
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
