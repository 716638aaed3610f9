//! The share of a CPU that Lambda gives to a size of memory, by a control group (cgroups(7)) of version 1 or 2.
use anyhow::{Context as _, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The memory that comes with one whole CPU, in MB (docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html).
const MEMORY_OF_ONE_CPU_MB: f64 = 1769.0;
/// How often the share is dealt out, in microseconds. It is an assumption: Lambda does not say.
const PERIOD_US: f64 = 20_000.0;
/// The kernel takes no less.
const LEAST_US: f64 = 1_000.0;

/// A control group; dropping it removes it, when nothing runs in it any more.
pub struct Quota {
    folder: PathBuf,
    is_version_2: bool,
}

impl Quota {
    /// Makes the group, without a limit yet.
    ///
    /// # Errors
    /// Where this machine lets us make none.
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

    /// Takes a process in.
    ///
    /// # Errors
    /// When it has ended.
    pub fn take(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Limits what is in the group to the share of a size of memory.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn limit(&self, memory_mb: u32) -> Result<()> {
        let share_us = (PERIOD_US * f64::from(memory_mb) / MEMORY_OF_ONE_CPU_MB).max(LEAST_US).round();
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
