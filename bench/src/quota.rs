//! Limits CPU like Lambda does for a memory size, with a control group (cgroups(7)), version 1 or 2.
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The memory size at which Lambda gives one full CPU, in MB
/// (docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html).
const MEMORY_OF_ONE_CPU_MB: f64 = 1769.0;
/// The length of a scheduling period, in microseconds. This is an assumption: Lambda does not document it.
const PERIOD_US: f64 = 20_000.0;
/// The smallest quota that the kernel accepts, in microseconds.
const MIN_QUOTA_US: f64 = 1_000.0;

/// A control group. Dropping it removes the group once it has no processes left.
pub struct Quota {
    folder: PathBuf,
    is_version_2: bool,
}

impl Quota {
    /// Creates the group, without a limit.
    ///
    /// # Errors
    /// If this machine does not permit it.
    pub fn new() -> Result<Self> {
        for (parent, file, is_version_2) in
            [("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", false), ("/sys/fs/cgroup", "cpu.max", true)]
        {
            let folder = Path::new(parent).join(format!("task-api-bench-{}", std::process::id()));
            if fs::create_dir(&folder).is_ok() {
                let quota = Self { folder, is_version_2 };
                if quota.folder.join(file).exists() {
                    return Ok(quota);
                }
            }
        }
        bail!("a CPU share needs a control group with a CPU controller, which root can make (cgroups(7))")
    }

    /// Adds a process to the group.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Limits the group to the CPU share of a memory size.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn limit(&self, memory_mb: u32) -> Result<()> {
        let share_us = (PERIOD_US * f64::from(memory_mb) / MEMORY_OF_ONE_CPU_MB).max(MIN_QUOTA_US).round();
        if self.is_version_2 {
            return self.write("cpu.max", &format!("{share_us} {PERIOD_US}"));
        }
        self.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        self.write("cpu.cfs_quota_us", &share_us.to_string())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, value).with_context(|| format!("{} does not take {value}", path.display()))
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
