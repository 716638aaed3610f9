//! The log output of `cargo xtask dev`: turns the functions' JSON lines into readable ones.
use serde_json::Value;
use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

/// Errors that cargo lambda logs for each function that it restarts after a change.
const NOISE: [&str; 2] = ["blocking waitpid returned pid=0", "command killed code=ForceStop"];

/// Prints log lines to standard output, and writes them unchanged to a file.
pub struct CallLog {
    file: Option<File>,
    /// Whether lines are printed unchanged (`--json`).
    is_raw: bool,
    has_colour: bool,
    /// Local time minus UTC, in seconds.
    utc_offset: i64,
    /// Whether calls are printed. The calls that start the API are not.
    shows_calls: AtomicBool,
}

impl CallLog {
    /// Creates the log; `file` is truncated.
    pub fn new(is_raw: bool, file: &Path) -> io::Result<Self> {
        let has_colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let file = Some(File::create(file)?);
        Ok(Self { file, is_raw, has_colour, utc_offset: utc_offset().unwrap_or(0), shows_calls: AtomicBool::default() })
    }

    /// Prints calls from now on.
    pub fn show_calls(&self) {
        self.shows_calls.store(true, Ordering::Relaxed);
    }

    /// Logs a line of a function or of the server that runs it.
    pub fn write(&self, line: &str) {
        if let Some(mut file) = self.file.as_ref() {
            let _ = file.write_all(format!("{line}\n").as_bytes());
        }
        if let Some(line) = self.readable(line, SystemTime::now()) {
            anstream::println!("{line}");
        }
    }

    /// Returns the line to print, or `None` if it is not printed.
    fn readable(&self, line: &str, now: SystemTime) -> Option<String> {
        if NOISE.iter().any(|noise| line.contains(noise)) {
            return None;
        }
        let fields: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |name: &str| fields[name].as_str().unwrap_or_default();
        let is_call = fields["route"].is_string();
        if !fields.is_object() || (self.is_raw && !is_call) {
            return Some(line.to_owned());
        }
        if (is_call && !self.shows_calls.load(Ordering::Relaxed)) || (text("message") == "started" && !self.is_raw) {
            return None;
        }
        if self.is_raw {
            return Some(line.to_owned());
        }
        let after = |separator: &str, name: &str| match text(name) {
            "" => String::new(),
            text => format!("{separator}{text}"),
        };
        let cause = after(": ", "cause") + &after(": ", "auth_failure");
        let time = self.time(now);
        if !is_call {
            return Some(format!("{time} {} {}{cause}", text("level"), text("message")));
        }
        let status = fields["status"].as_u64().unwrap_or_default();
        let colour = match status {
            200..=399 => 32, // green
            400..=499 => 33, // yellow
            _ => 31,         // red
        };
        let status = if self.has_colour { format!("\x1b[{colour}m{status}\x1b[0m") } else { status.to_string() };
        let cold = if fields["ColdStart"] == 1 { ", cold" } else { "" };
        let latency = fields["Latency"].as_f64().unwrap_or_default();
        let (route, function, user) = (text("route"), text("function"), after(", for ", "user_id"));
        Some(format!("{time} {status} {route} in {latency:.1} ms by {function}{cold}{user}{cause}"))
    }

    /// Formats the local time of day, such as `09:41:00`.
    fn time(&self, now: SystemTime) -> String {
        const DAY_S: i64 = 24 * 60 * 60;
        let unix = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        let second = (unix + self.utc_offset).rem_euclid(DAY_S);
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    }
}

/// Returns local time minus UTC, in seconds. It comes from `date`, which every system has: the standard library has no
/// time zones.
fn utc_offset() -> Option<i64> {
    let output = Command::new("date").arg("+%z").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number: i64 = text.trim().parse().ok()?;
    Some((number / 100 * 60 + number % 100) * 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const CALL: &str = r#"{"route":"GET /api/tasks/{id}","status":404,"Latency":2.3456,"ColdStart":1,"function":"get-task","level":"INFO","message":"request","user_id":"ada"}"#;
    const REFUSED: &str = r#"{"route":"GET /api/session","status":401,"Latency":1,"ColdStart":0,"function":"session","level":"INFO","message":"request","auth_failure":"jwt_expired"}"#;
    const FAILED: &str = r#"{"route":"GET /health","status":503,"Latency":9,"ColdStart":0,"function":"health","level":"ERROR","message":"request failed","cause":"away"}"#;
    const STARTED: &str = r#"{"message":"started","level":"INFO","InitTime":9}"#;
    const WARNING: &str = r#"{"message":"the database cannot be reached yet","level":"WARN","cause":"away"}"#;

    fn log(is_raw: bool, has_colour: bool) -> CallLog {
        CallLog { file: None, is_raw, has_colour, utc_offset: 3600, shows_calls: AtomicBool::default() }
    }

    fn shown(log: &CallLog, line: &str) -> Option<String> {
        log.readable(line, UNIX_EPOCH + Duration::from_secs(23 * 3600 + 61))
    }

    #[test]
    fn a_call_is_one_readable_line() {
        let log = log(false, false);
        assert_eq!(shown(&log, CALL), None, "before the welcome");
        log.show_calls();
        let line = "00:01:01 404 GET /api/tasks/{id} in 2.3 ms by get-task, cold, for ada";
        assert_eq!(shown(&log, CALL).as_deref(), Some(line));
        let refused = "00:01:01 401 GET /api/session in 1.0 ms by session: jwt_expired";
        assert_eq!(shown(&log, REFUSED).as_deref(), Some(refused));
        assert_eq!(shown(&log, FAILED).as_deref(), Some("00:01:01 503 GET /health in 9.0 ms by health: away"));
        assert_eq!(shown(&log, STARTED), None);
        assert_eq!(shown(&log, WARNING).as_deref(), Some("00:01:01 WARN the database cannot be reached yet: away"));
        assert_eq!(shown(&log, "error[E0425]: not JSON").as_deref(), Some("error[E0425]: not JSON"));
        for noise in ["ERROR blocking waitpid returned pid=0", "ERROR command killed code=ForceStop"] {
            assert_eq!(shown(&log, noise), None);
        }
    }

    #[test]
    fn a_terminal_shows_the_status_in_colour() {
        let log = log(false, true);
        log.show_calls();
        assert!(shown(&log, CALL).unwrap().contains("\x1b[33m404\x1b[0m"));
        assert!(shown(&log, FAILED).unwrap().contains("\x1b[31m503\x1b[0m"));
    }

    #[test]
    fn raw_lines_are_the_functions_own() {
        let log = log(true, true);
        assert_eq!(shown(&log, CALL), None, "before the welcome");
        log.show_calls();
        for line in [CALL, FAILED, STARTED, WARNING, "not JSON"] {
            assert_eq!(shown(&log, line).as_deref(), Some(line));
        }
    }
}
