//! Host facts: what this kernel and configuration can do, asked, never read from a version.

mod groups;
mod limits;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use jacamar_kernel::{Call, Errno, exit_now, probe as ask};
use jacamar_plan::{
    Amount, Arch, Bytes, Calls, Host, HostMount, Level, Mount, MountFlags, Namespaces, Presence, Profile,
    Resources, Urgency,
};
use nix::sys::prctl::get_no_new_privs;
use nix::sys::sysinfo::sysinfo;
use nix::sys::utsname::uname;
use nix::sys::wait::{WaitStatus, waitpid};
use procfs::ProcError;
use procfs::process::MountInfo;

/// Which control groups the site wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupChoice {
    /// As root `jacamar.slice`; else what systemd delegated to us; else none.
    Auto,
    /// Below this directory.
    Path(String),
    /// None at all.
    None,
}

/// Why the host could not be probed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// /proc did not answer.
    #[error("could not read /proc: {0}")]
    Proc(#[from] ProcError),
    /// A call that always works did not.
    #[error("could not {what}: {}", errno.desc())]
    Call {
        /// What.
        what: &'static str,
        /// errno(3)
        errno: Errno,
    },
}

/// Directories that plans may mount on.
const DIRECTORIES: [&str; 9] =
    ["/usr", "/boot", "/efi", "/etc", "/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/etc/ssh/ssh_config.d"];

/// What a profile and a configuration name, and a probe must look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    directories: Vec<String>,
    devices: Vec<String>,
    /// Whether a limit is among them that only a newer systemd has: it is asked for its version then, which takes a process.
    newer: bool,
}

impl Named {
    /// The directories and the disks that a profile names, and the disks of further limits.
    pub fn by<'r>(profile: &'r Profile, more: impl IntoIterator<Item = &'r Resources>) -> Self {
        let settings = &profile.settings;
        let entries = settings.temporary_file_system.iter().flat_map(|setting| &setting.value);
        let all = more.into_iter().chain([&settings.resources]).flatten().collect::<Vec<_>>();
        let paths = |amount: &Amount| match amount {
            Amount::Rates(rates) => rates.iter().map(|rate| rate.path.clone()).collect(),
            _ => Vec::new(),
        };
        Self {
            directories: entries.map(|entry| entry.path.clone()).collect(),
            devices: all.iter().flat_map(|(_, setting)| paths(&setting.value)).collect(),
            newer: all.iter().any(|(control, _)| control.systemd_since().is_some()),
        }
    }
}

/// Asks the kernel. `named` are directories and disks of the profile and the configuration.
///
/// # Errors
/// [`ProbeError`] if /proc does not answer; what the host lacks is a fact, not an error.
pub fn probe(level: Level, choice: &CgroupChoice, named: &Named) -> Result<Host, ProbeError> {
    let tried = try_namespaces(level)?;
    facts(level, choice, named, tried)
}

/// As [`probe`], but the namespaces are presumed: making them twice is a quarter of what a command costs. Only for who
/// launches at once and, where that fails, asks with [`probe`] and plans again: [`crate::Session::run`].
///
/// # Errors
/// As [`probe`].
pub(crate) fn presume(level: Level, choice: &CgroupChoice, named: &Named) -> Result<Host, ProbeError> {
    facts(level, choice, named, TriedNamespaces::PRESUMED)
}

fn facts(
    level: Level,
    choice: &CgroupChoice,
    named: &Named,
    tried: TriedNamespaces,
) -> Result<Host, ProbeError> {
    let mounts = mounts()?;
    let directories = directories(&named.directories);
    let call = |what, errno| ProbeError::Call { what, errno };
    let kernel = uname().map_err(|errno| call("read the kernel's name", errno))?;
    let rlimits = limits::inherited()?;
    let processors = limits::processors();
    let memory = sysinfo().map_err(|errno| call("read the size of the memory", errno))?.ram_total();
    let no_new_privs = get_no_new_privs().map_err(|errno| call("read no_new_privs", errno))?;
    Ok(Host {
        release: kernel.release().to_string_lossy().into_owned(),
        arch: arch(),
        level,
        calls: calls(),
        cgroup: groups::cgroup(level, choice, &mounts, processors.as_ref(), named.newer)?,
        user_namespaces: tried.user,
        namespaces: tried.namespaces,
        own_proc: tried.own_proc,
        cap_last_cap: last_capability()?,
        no_new_privs,
        urgency: urgency()?,
        memory: Bytes(memory),
        tasks: tasks()?,
        processors,
        lost_stack: limits::lost_stack(level, &rlimits)?,
        raises_limits: limits::raises(&rlimits)?,
        open_files_max: limits::open_files_max()?,
        rlimits,
        devices: limits::devices(&named.devices),
        ssh_config_files: directories.get("/etc/ssh/ssh_config.d").is_some_and(|path| has_files(path)),
        mounts: host_mounts(&mounts, &directories),
        directories,
    })
}

/// The facts of now, for a later stage of a job: mounts, directories and controllers change between stages; what the
/// kernel can do does not.
///
/// # Errors
/// As [`probe`].
pub fn probe_again(known: &Host, named: &Named) -> Result<Host, ProbeError> {
    let mounts = mounts()?;
    let directories = directories(&named.directories);
    let mut host = known.clone();
    host.urgency = urgency()?;
    host.ssh_config_files = directories.get("/etc/ssh/ssh_config.d").is_some_and(|path| has_files(path));
    host.mounts = host_mounts(&mounts, &directories);
    host.directories = directories;
    groups::look_again(&mut host.cgroup);
    host.rlimits = limits::inherited()?;
    host.lost_stack = limits::lost_stack(host.level, &host.rlimits)?;
    host.devices = limits::devices(&named.devices);
    Ok(host)
}

/// The site's nodes of this host: as a probe finds it, and at the capability level that of each service which was delegated
/// to the runner's account, for a collection runs in none of them.
///
/// # Errors
/// As [`probe`].
pub fn cgroup_nodes(level: Level, choice: &CgroupChoice) -> Result<Vec<String>, ProbeError> {
    let mounts = mounts()?;
    let own = groups::node(level, choice, &mounts)?.node.ok();
    let others = match level {
        Level::Capabilities => groups::delegated_nodes(&mounts),
        Level::Root | Level::User => Vec::new(),
    };
    let mut nodes: Vec<String> = own.into_iter().chain(others).collect();
    nodes.sort();
    nodes.dedup();
    Ok(nodes)
}

/// Whether our process is in this control group or below it.
///
/// # Errors
/// As [`probe`].
pub fn is_in_group(path: &str) -> Result<bool, ProbeError> {
    groups::is_in(path, &mounts()?)
}

/// Room for the mounts of most hosts.
const MOUNTS_ROOM_BYTES: usize = 32 * 1024;

/// /proc/self/mountinfo, line by line. Any user can have a mount whose name is not UTF-8 (a FUSE file system in his
/// home), and must not stop anybody's job with it: such a line is none of the directories that we look for.
fn mounts() -> Result<Vec<MountInfo>, ProbeError> {
    let failed = |error: std::io::Error| ProbeError::Call {
        what: "read /proc/self/mountinfo",
        errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
    };
    // A file of unknown size is read in steps that double from 32 bytes, unless there is room.
    let mut text = Vec::with_capacity(MOUNTS_ROOM_BYTES);
    File::open("/proc/self/mountinfo").and_then(|mut file| file.read_to_end(&mut text)).map_err(failed)?;
    let lines = text.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let mounts = lines.filter(|line| !line.is_empty()).filter_map(|line| MountInfo::from_line(line).ok());
    Ok(mounts
        .map(|mut mount| {
            mount.mount_point = unescape(&mount.mount_point).into();
            mount
        })
        .collect())
}

/// The kernel writes blanks, tabs, line ends and backslashes of a name as three octal digits, proc_pid_mountinfo(5).
fn unescape(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut parts = text.split('\\');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match (byte, part.get(3..)) {
            (Some(byte), Some(rest)) => {
                name.push(char::from(byte));
                name.push_str(rest);
            }
            (_, _) => {
                name.push('\\');
                name.push_str(part);
            }
        }
    }
    name
}

fn arch() -> Arch {
    match std::env::consts::ARCH {
        "x86_64" => Arch::X86_64,
        "aarch64" => Arch::Aarch64,
        "riscv64" => Arch::Riscv64,
        _ => Arch::Other,
    }
}

fn presence(call: Call) -> Presence {
    match ask(call) {
        Ok(()) => Presence::Present,
        Err(errno) => Presence::Absent(errno as i32),
    }
}

fn calls() -> Calls {
    Calls {
        clone_into_cgroup: presence(Call::CloneIntoCgroup),
        pidfd_open: presence(Call::PidfdOpen),
        openat2: presence(Call::Openat2),
        close_range: presence(Call::CloseRange),
        keyctl: presence(Call::Keyctl),
        seccomp: presence(Call::Seccomp),
    }
}

/// What came of making the namespaces.
struct TriedNamespaces {
    user: Presence,
    namespaces: Presence,
    own_proc: Presence,
}

impl TriedNamespaces {
    const PRESUMED: Self =
        Self { user: Presence::Present, namespaces: Presence::Present, own_proc: Presence::Present };
}

/// Makes the namespaces once, in a child that mounts a procfs and ends. sysctls, security modules, seccomp and a
/// partly covered /proc all have their say in this, and none of them can be asked otherwise.
fn try_namespaces(level: Level) -> Result<TriedNamespaces, ProbeError> {
    let user = level != Level::Root;
    let all = Namespaces { user, mount: true, pid: true, ipc: true };
    let namespaces = match try_in(all, mount_own_proc)? {
        Ok(own_proc) => return Ok(TriedNamespaces { own_proc, ..TriedNamespaces::PRESUMED }),
        Err(errno) => Presence::Absent(errno as i32),
    };
    // Together they cannot be made: which of them is it?
    let user = match user {
        false => Presence::Present,
        true => match try_in(Namespaces { user: true, ..Namespaces::default() }, || 0)? {
            Ok(_) => Presence::Present,
            Err(errno) => Presence::Absent(errno as i32),
        },
    };
    Ok(TriedNamespaces { user, namespaces, own_proc: namespaces })
}

fn mount_own_proc() -> i32 {
    let slave = jacamar_kernel::mount(None, c"/", None, MountFlags::REC.and(MountFlags::SLAVE).0, None);
    let mounted = slave.and_then(|()| {
        jacamar_kernel::mount(Some(c"proc"), c"/proc", Some(c"proc"), Mount::PSEUDO.0, Some(c"hidepid=2"))
    });
    match mounted {
        Ok(()) => 0,
        Err(errno) => errno as i32,
    }
}

/// The outer error is ours, the inner one the kernel's answer to the clone; the value is what the child found.
fn try_in(namespaces: Namespaces, act: fn() -> i32) -> Result<Result<Presence, Errno>, ProbeError> {
    let child = || -> Infallible { exit_now(act()) };
    let pid = match jacamar_kernel::clone(namespaces.clone_flags(), child) {
        Ok(pid) => pid,
        Err(errno) => return Ok(Err(errno)),
    };
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, 0)) => return Ok(Ok(Presence::Present)),
            Ok(WaitStatus::Exited(_, code)) => return Ok(Ok(Presence::Absent(code))),
            Ok(_) => return Ok(Ok(Presence::Absent(Errno::ECANCELED as i32))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(ProbeError::Call { what: "wait for a probe", errno }),
        }
    }
}

/// Of our process, and so of each child.
fn urgency() -> Result<Urgency, ProbeError> {
    let told = |what, result: Result<bool, Errno>| result.map_err(|errno| ProbeError::Call { what, errno });
    let oom_score = std::fs::read_to_string("/proc/self/oom_score_adj")
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        .and_then(|text| text.trim().parse::<i16>().map_err(|_| Errno::EBADMSG))
        .map(|value| value < 0);
    Ok(Urgency {
        nice: told("read the nice value", jacamar_kernel::is_nice_negative())?,
        scheduling: told("read the scheduling policy", jacamar_kernel::is_realtime())?,
        io: match jacamar_kernel::is_io_realtime() {
            // A kernel without block devices.
            Err(Errno::ENOSYS) => false,
            other => told("read the I/O scheduling class", other)?,
        },
        oom_score: told("read /proc/self/oom_score_adj", oom_score)?,
    })
}

/// The last number that the kernel knows, found by halving: it knows all below.
fn last_capability() -> Result<u8, ProbeError> {
    let known = |number| match jacamar_kernel::bounding_has(number) {
        Ok(_) => Ok(true),
        Err(Errno::EINVAL) => Ok(false),
        Err(errno) => Err(ProbeError::Call { what: "read the bounding set", errno }),
    };
    // Sets have 64 bits; CAP_CHOWN is 0.
    let (mut last, mut unknown) = (0, 64);
    while unknown - last > 1 {
        let middle = last + (unknown - last) / 2;
        if known(middle)? {
            last = middle;
        } else {
            unknown = middle;
        }
    }
    Ok(last)
}

fn tasks() -> Result<u64, ProbeError> {
    let pids = u64::try_from(procfs::sys::kernel::pid_max()?).unwrap_or(u64::MAX);
    let threads = u64::from(procfs::sys::kernel::threads_max()?);
    Ok(pids.min(threads))
}

/// Which directories exist, and what they are really called.
fn directories(more: &[String]) -> BTreeMap<String, String> {
    let wanted = DIRECTORIES.into_iter().chain(more.iter().map(String::as_str));
    wanted
        .filter_map(|path| {
            let real = Path::new(path).canonicalize().ok().filter(|real| real.is_dir())?;
            Some((path.to_owned(), real.into_os_string().into_string().ok()?))
        })
        .collect()
}

fn has_files(directory: &str) -> bool {
    // One that cannot be read has files, as far as ssh is concerned.
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_some())
}

/// Mounts in, at and below the directories, with the flags that a remount must repeat.
fn host_mounts(mounts: &[MountInfo], directories: &BTreeMap<String, String>) -> Vec<HostMount> {
    let related = |target: &Path| {
        directories
            .values()
            .any(|directory| target.starts_with(directory) || Path::new(directory).starts_with(target))
    };
    mounts
        .iter()
        .filter(|mount| related(&mount.mount_point))
        .filter_map(|mount| {
            let target = mount.mount_point.to_str()?.to_owned();
            Some(HostMount { target, flags: flags(mount) })
        })
        .collect()
}

fn flags(mount: &MountInfo) -> MountFlags {
    let known = [
        ("ro", MountFlags::RDONLY),
        ("nosuid", MountFlags::NOSUID),
        ("nodev", MountFlags::NODEV),
        ("noexec", MountFlags::NOEXEC),
        ("noatime", MountFlags::NOATIME),
        ("nodiratime", MountFlags::NODIRATIME),
        ("relatime", MountFlags::RELATIME),
    ];
    let has = |name: &str| mount.mount_options.contains_key(name);
    let set =
        known.into_iter().filter(|(name, _)| has(name)).fold(MountFlags::default(), |set, (_, f)| set.and(f));
    // Neither means strictatime, and a remount without a word would be relatime: locked in a user namespace.
    if has("noatime") || has("relatime") { set } else { set.and(MountFlags::STRICTATIME) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mounts_are_unescaped() {
        for (written, name) in
            [("/usr", "/usr"), (r"/usr/a\040b\134c", r"/usr/a b\c"), (r"/x\9", r"/x\9"), (r"/x\04", r"/x\04")]
        {
            assert_eq!(unescape(Path::new(written)), name);
        }
    }

    #[test]
    fn the_last_capability_is_the_kernels() {
        let told = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("readable");
        assert_eq!(last_capability().expect("asked").to_string(), told.trim());
    }

    #[test]
    fn our_own_mounts_can_be_read() {
        assert!(mounts().expect("readable").iter().any(|mount| mount.mount_point == Path::new("/")));
    }
}
