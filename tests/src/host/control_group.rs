//! A control group of a test's own in the cgroup v2 tree of this host; removed when it is dropped.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Account;

/// A group, made by root below the root of the tree. No controller is enabled in it.
#[derive(Debug)]
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes a group; `None` on a host without cgroup v2.
    ///
    /// # Errors
    /// Without the right to make it.
    pub fn make() -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("could not read the mounts")?;
        let root =
            mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4));
        let Some(root) = root else { return Ok(None) };
        let name = format!("testbed-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(root).join(name);
        fs::create_dir(&path).with_context(|| format!("could not make {}", path.display()))?;
        Ok(Some(Self(path)))
    }

    /// Its directory.
    ///
    /// # Panics
    /// If that is not UTF-8.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.to_str().expect("ours is UTF-8")
    }

    /// Gives it to an account, as systemd does for `Delegate=yes`.
    ///
    /// # Errors
    /// chown(2)'s.
    pub fn delegate(&self, account: &Account) -> Result<()> {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            let path = self.0.join(file);
            std::os::unix::fs::chown(&path, Some(account.uid), Some(account.gid))
                .with_context(|| format!("could not give {} away", path.display()))?;
        }
        Ok(())
    }

    /// Groups below it.
    ///
    /// # Panics
    /// If it cannot be listed.
    #[must_use]
    pub fn children(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.0).expect("a control group").filter_map(Result::ok);
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// A word that makes a shell of root's enter the group and then execute the rest of its line. Once a job has divided the
    /// group, only a leaf of it takes processes.
    #[must_use]
    pub fn enter(&self) -> [String; 4] {
        let path = self.path();
        let line = format!(
            "if [ -d {path}/runner ]; then echo $$ > {path}/runner/cgroup.procs; else echo $$ > {path}/cgroup.procs; fi; \
             exec \"$@\""
        );
        ["sh".into(), "-c".into(), line, "sh".into()]
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if fs::write(self.0.join("cgroup.kill"), "1").is_ok() {
            let deadline = Instant::now() + Duration::from_secs(5);
            while remove(&self.0).is_err() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn remove(path: &PathBuf) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
