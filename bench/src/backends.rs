//! The CPU time of PostgreSQL's server processes.
use anyhow::Result;
use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use std::{fs, time::Duration};

/// The server processes of one PostgreSQL. Linux only.
#[derive(Clone, Copy)]
pub struct Backends {
    postmaster: u32,
}

impl Backends {
    /// The server whose first process has this id.
    pub fn of_postmaster(postmaster: u32) -> Self {
        Self { postmaster }
    }

    /// Returns the CPU time of all processes that serve a client now, in ms. Only a difference means something, and only
    /// while no connection begins or ends.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn cpu_ms(&self) -> Result<f64> {
        let mut total = Duration::ZERO;
        for entry in fs::read_dir("/proc")?.flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            if parent(&read("stat")) == Some(self.postmaster) && serves_client(&read("cmdline")) {
                // A process that has ended meanwhile no longer counts.
                let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(id)).and_then(clock_gettime);
                total += clock.map_or(Duration::ZERO, Duration::from);
            }
        }
        Ok(total.as_secs_f64() * 1000.0)
    }
}

/// The parent's id in /proc/PID/stat (proc(5)). The name before it can contain spaces and parentheses.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process title is that of a client's server process, such as `postgres: tasks_api tasks 127.0.0.1(39482) idle`.
fn serves_client(title: &str) -> bool {
    title.starts_with("postgres: ") && title.contains(" 127.0.0.1(")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_follows_a_name_with_any_characters() {
        assert_eq!(parent("12 (a (b) c) S 7 12 12 0"), Some(7));
        assert_eq!(parent(""), None);
    }

    #[test]
    fn only_processes_with_a_client_count() {
        assert!(serves_client("postgres: tasks_api tasks 127.0.0.1(39482) idle"));
        for title in ["postgres: checkpointer ", "postgres: autovacuum worker tasks", "/usr/bin/postgres -D x", ""] {
            assert!(!serves_client(title), "{title}");
        }
    }
}
