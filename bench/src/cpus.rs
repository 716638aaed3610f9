//! CPU affinity: separates the measured program from everything else.
//!
//! On Lambda a function with less than 1,769 MB has at most one CPU, and never shares it with its database. Here,
//! without affinity, the scheduler places processes differently each time, and the same program's latencies differ by a
//! third from one start to the next.
use anyhow::{Context as _, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use std::fs;

/// The id for the calling thread in sched_setaffinity(2).
const THIS_THREAD: Pid = Pid::from_raw(0);

/// One CPU for the measured program, and the others for everything else.
#[derive(Clone, Copy)]
pub struct Cpus {
    measured: CpuSet,
    others: CpuSet,
}

impl Cpus {
    /// Restricts this process and its future children to all CPUs but one, which is reserved for the measured program.
    /// `None` if there is only one CPU.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_one_aside() -> Result<Option<Self>> {
        let ours = sched_getaffinity(THIS_THREAD)?;
        let (mut measured, mut others, mut count) = (CpuSet::new(), CpuSet::new(), 0);
        for cpu in (0..CpuSet::count()).rev().filter(|cpu| ours.is_set(*cpu).unwrap_or(false)) {
            if count == 0 {
                measured.set(cpu)?
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
        Ok(Some(Self { measured, others }))
    }

    /// Calls `start` on the reserved CPU, where a process that it starts then stays.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn on_measured_cpu<T>(&self, start: impl FnOnce() -> T) -> Result<T> {
        sched_setaffinity(THIS_THREAD, &self.measured)?;
        let started = start();
        sched_setaffinity(THIS_THREAD, &self.others)?;
        Ok(started)
    }
}
