//! Which CPU runs what.
//!
//! On Lambda a function of less than 1,769 MB has at most one CPU, and never shares it with its database. Here, where the
//! scheduler seats them as it likes, the same program's calls differ by a third from one start to the next.
use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::fs;

/// How sched_setaffinity(2) calls the thread that asks.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// One CPU for the program that is measured, and the others for all else.
#[derive(Clone, Copy)]
pub struct Cpus {
    programs: CpuSet,
    others: CpuSet,
}

impl Cpus {
    /// Keeps this process, and what it starts from now on, to all CPUs but one, which is the measured program's. `None` where
    /// there is only one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_one_aside() -> Result<Option<Self>> {
        let ours = sched_getaffinity(THIS_THREAD)?;
        let (mut programs, mut others, mut count) = (CpuSet::new(), CpuSet::new(), 0);
        for cpu in (0..CpuSet::count()).rev().filter(|cpu| ours.is_set(*cpu).unwrap_or(false)) {
            if count == 0 {
                programs.set(cpu)?
            } else {
                others.set(cpu)?
            }
            count += 1;
        }
        if count < 2 {
            return Ok(None);
        }
        for thread in fs::read_dir("/proc/self/task")? {
            let id = thread?.file_name().to_string_lossy().parse().context("a thread's number")?;
            sched_setaffinity(Pid::from_raw(id), &others)?;
        }
        Ok(Some(Self { programs, others }))
    }

    /// Starts something on the program's CPU, where it stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn on_programs<T>(&self, start: impl FnOnce() -> T) -> Result<T> {
        sched_setaffinity(THIS_THREAD, &self.programs)?;
        let started = start();
        sched_setaffinity(THIS_THREAD, &self.others)?;
        Ok(started)
    }
}
