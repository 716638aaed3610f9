//! Durations of earlier runs on this machine, shown as estimates before the next run.
use crate::place::target;
use std::{
    collections::BTreeMap,
    fmt::{Display, Formatter},
    fs,
    path::PathBuf,
    time::Duration,
};

/// The last duration of each step in seconds, by step name.
#[derive(Default)]
pub struct Durations(BTreeMap<String, f64>);

impl Durations {
    /// Reads what earlier commands recorded. Empty if the file is missing or damaged.
    pub fn read() -> Self {
        let text = fs::read_to_string(Self::file()).unwrap_or_default();
        let entry = |line: &str| {
            let (name, seconds) = line.rsplit_once(' ')?;
            Some((name.to_owned(), seconds.parse().ok()?))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    fn file() -> PathBuf {
        target().join("durations.txt")
    }

    pub fn get(&self, name: &str) -> Option<Duration> {
        self.0.get(name).and_then(|seconds| Duration::try_from_secs_f64(*seconds).ok())
    }

    /// Records a duration. A write error is ignored, because durations are only informational.
    pub fn record(name: &str, duration: Duration) {
        // Read again: commands that run at the same time record other names.
        let mut all = Self::read();
        all.0.insert(name.to_owned(), duration.as_secs_f64());
        let lines: String = all.0.iter().map(|(name, seconds)| format!("{name} {seconds:.1}\n")).collect();
        let _ = fs::create_dir_all(target());
        let _ = fs::write(Self::file(), lines);
    }

    /// Returns the estimate to print before a step: its last duration, or `usual`.
    pub fn expectation(&self, name: &str, usual: &str) -> String {
        self.get(name).map_or_else(|| usual.to_owned(), |last| format!("{} the last time", Short(last)))
    }
}

/// Displays a duration briefly: `4.2 s`, `41 s`, `2 min 5 s`.
pub struct Short(pub Duration);

impl Display for Short {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            ..9.95 => write!(f, "{seconds:.1} s"),
            ..59.5 => write!(f, "{seconds:.0} s"),
            _ => {
                let seconds = self.0.as_secs() + u64::from(self.0.subsec_millis() >= 500);
                write!(f, "{} min {} s", seconds / 60, seconds % 60)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let text = |milliseconds| Short(Duration::from_millis(milliseconds)).to_string();
        assert_eq!(text(4_230), "4.2 s");
        assert_eq!(text(9_960), "10 s");
        assert_eq!(text(41_200), "41 s");
        assert_eq!(text(59_600), "1 min 0 s");
        assert_eq!(text(125_000), "2 min 5 s");
    }
}
