//! What makes a mount namespace a host of its own. Runs in the process that holds the namespace, and touches nothing
//! outside of it.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;

use super::accounts::{Account, Accounts, KEEPER, RUNNER};
use super::programs::{PRODUCT, TESTBED, program};
use super::{BIN, CAPS_PREFIX, PREFIX, PRIVATE, SHARED, SHOWN, STATE};

/// The capabilities of `jacamar-auth`, and of the program of the testbed that stands for its `exec`, at the capability level.
const FILE_CAPABILITIES: &str = "cap_setuid,cap_setgid=ep";

/// What is changed of the base for one kind of test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variation {
    /// The state directory belongs to the keeper, not to root.
    pub keeper: bool,
    /// No cgroup v2 file system is mounted.
    pub no_cgroup2: bool,
}

/// Prints `ready` and keeps the namespace until standard input ends.
///
/// # Errors
/// If that cannot be done.
pub(super) fn hold() -> Result<()> {
    let mut output = std::io::stdout();
    output.write_all(b"ready\n").context("could not say that the host is ready")?;
    output.flush().context("could not say that the host is ready")?;
    std::io::stdin().read_to_end(&mut Vec::new()).context("could not wait")?;
    Ok(())
}

/// Makes the base: own files of accounts, /etc, /home, /srv and /var/lib/jacamar, with the programs installed.
///
/// # Errors
/// The first thing that cannot be had.
pub(super) fn base(accounts: &Accounts, shown: &[String]) -> Result<()> {
    // Opened before a tmpfs hides them: the tree may lie in /home or /srv.
    let mut programs = Vec::new();
    for name in PRODUCT.iter().chain(&TESTBED) {
        let path = program(name)?;
        programs
            .push((*name, File::open(&path).with_context(|| format!("could not open {}", path.display()))?));
    }
    own_namespace()?;
    // In the new namespace: a mount of another one cannot be bound.
    let shown: Vec<(&String, File)> = shown
        .iter()
        .map(|path| Ok((path, File::open(path).with_context(|| format!("could not open {path}"))?)))
        .collect::<Result<_>>()?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    tmpfs("/srv")?;
    for directory in [PREFIX, BIN, SHARED, SHOWN, STATE] {
        make(directory, 0o755)?;
    }
    make(PRIVATE, 0o700)?;
    for (name, file) in programs {
        let directory = if PRODUCT.contains(&name) { format!("{PREFIX}/bin") } else { BIN.to_owned() };
        make(&directory, 0o755)?;
        install(file, &format!("{directory}/{name}"))?;
    }
    run("setcap", &[FILE_CAPABILITIES, &format!("{BIN}/capability-level")])?;
    make(&format!("{CAPS_PREFIX}/bin"), 0o755)?;
    for name in PRODUCT {
        fs::copy(format!("{PREFIX}/bin/{name}"), format!("{CAPS_PREFIX}/bin/{name}"))
            .with_context(|| format!("could not copy {name}"))?;
    }
    let auth = format!("{CAPS_PREFIX}/bin/jacamar-auth");
    chown(&auth, None, Some(accounts.get(RUNNER).gid))
        .with_context(|| format!("could not give {auth} away"))?;
    fs::set_permissions(&auth, Permissions::from_mode(0o750))?;
    run("setcap", &[FILE_CAPABILITIES, &auth])?;

    etc(accounts)?;
    name_services()?;
    state(accounts)?;
    for directory in ["/tmp", "/var/tmp"] {
        tmpfs(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o1777))?;
    }
    tmpfs("/home")?;
    for account in &accounts.accounts {
        if account.home != "/" {
            make(&account.home, 0o700)?;
            own(&account.home, account)?;
        }
    }
    // A directory in /usr that belongs to a user and lies on a mount of its own: what read-only must cover too.
    for directory in ["/usr/local/src", "/usr/src"] {
        if Path::new(directory).is_dir() {
            tmpfs(directory)?;
            make(&format!("{directory}/ci1"), 0o700)?;
            own(&format!("{directory}/ci1"), accounts.get("ci1"))?;
            fs::write(format!("{SHARED}/usr-directory"), format!("{directory}/ci1"))?;
            break;
        }
    }
    let runner_directory = format!("{SHARED}/custom-executor");
    make(&runner_directory, 0o700)?;
    own(&runner_directory, accounts.get(RUNNER))?;
    fs::write(format!("{runner_directory}/script"), "secret")?;
    sweep_control_groups(accounts)?;
    for (path, file) in shown {
        let name = Path::new(path).file_name().context("a directory without a name")?;
        let target = Path::new(SHOWN).join(name);
        make(&target.to_string_lossy(), 0o755)?;
        bind(&format!("/proc/self/fd/{}", file.as_raw_fd()), &target.to_string_lossy())?;
    }
    Ok(())
}

/// Changes a copy of the base.
///
/// # Errors
/// The first thing that cannot be had.
pub(super) fn vary(variation: Variation) -> Result<()> {
    own_namespace()?;
    if variation.keeper {
        bind(&format!("{STATE}/keeper"), "/var/lib/jacamar")?;
    }
    if variation.no_cgroup2 {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("could not read the mounts")?;
        let cgroup2 = mounts.lines().filter(|line| line.contains(" - cgroup2 "));
        let places: Vec<&str> = cgroup2.filter_map(|line| line.split(' ').nth(4)).collect();
        for place in places.iter().rev() {
            umount2(*place, MntFlags::MNT_DETACH).with_context(|| format!("could not unmount {place}"))?;
        }
    }
    Ok(())
}

/// Groups of our accounts that killed supervisors of earlier tests left: empty ones that nobody touched for long.
fn sweep_control_groups(accounts: &Accounts) -> Result<()> {
    for account in &accounts.accounts {
        let own = format!("*/jacamar.slice/jacamar-u{}.slice*", account.uid);
        let mut find = Command::new("find");
        find.args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &own, "-mmin", "+10"]);
        find.args(["-exec", "rmdir", "--ignore-fail-on-non-empty", "{}", "+"]);
        // Those with processes stay, and others go while find looks at them: neither is a failure.
        find.output().context("could not start find")?;
    }
    Ok(())
}

fn own_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("could not make a mount namespace (this takes root)")?;
    // Nothing of ours arrives on the host; automounts of the host still arrive here.
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, slave, None::<&str>).context("could not part the mounts")
}

fn tmpfs(target: &str) -> Result<()> {
    mount(Some("tmpfs"), target, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .with_context(|| format!("could not mount a tmpfs on {target}"))
}

fn bind(source: &str, target: &str) -> Result<()> {
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("could not bind {source} on {target}"))
}

fn make(path: &str, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("could not make {path}"))?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| format!("could not set the mode of {path}"))
}

fn own(path: &str, account: &Account) -> Result<()> {
    chown(path, Some(account.uid), Some(account.gid)).with_context(|| format!("could not give {path} away"))
}

fn install(mut from: File, to: &str) -> Result<()> {
    let mut target = File::create(to).with_context(|| format!("could not make {to}"))?;
    std::io::copy(&mut from, &mut target).with_context(|| format!("could not write {to}"))?;
    fs::set_permissions(to, Permissions::from_mode(0o755))
        .with_context(|| format!("could not set the mode of {to}"))
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("could not start {program}"))?;
    if !output.status.success() {
        bail!("{program} {arguments:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// A copy of /etc in memory: the product looks at whole directories, and /etc/jacamar may not be there.
fn etc(accounts: &Accounts) -> Result<()> {
    let copy = format!("{PRIVATE}/etc");
    run("cp", &["-a", "--one-file-system", "/etc", &copy])?;
    for (file, lines) in ["passwd", "shadow", "group"].iter().zip(accounts.files()) {
        let path = format!("{copy}/{file}");
        let old = fs::read_to_string(&path).unwrap_or_default();
        let names: Vec<&str> = lines.iter().filter_map(|line| line.split(':').next()).collect();
        let kept =
            old.lines().filter(|line| line.split(':').next().is_none_or(|name| !names.contains(&name)));
        let text: String =
            kept.chain(lines.iter().map(String::as_str)).flat_map(|line| [line, "\n"]).collect();
        fs::write(&path, text).with_context(|| format!("could not write {path}"))?;
    }
    // Files alone: no name service of the host's is asked for accounts that it does not know.
    let services = "passwd: files\ngroup: files\nshadow: files\ninitgroups: files\nhosts: files dns\n";
    fs::write(format!("{copy}/nsswitch.conf"), services)?;
    make(&format!("{copy}/jacamar"), 0o755)?;
    // As EL and Fedora ship it: root's file, included by root's file (launch.md E15).
    make(&format!("{copy}/ssh/ssh_config.d"), 0o755)?;
    fs::write(format!("{copy}/ssh/ssh_config"), "Include /etc/ssh/ssh_config.d/*.conf\n")?;
    fs::write(
        format!("{copy}/ssh/ssh_config.d/50-testbed.conf"),
        "Host testbed.invalid\n  User from-the-root-owned-file\n",
    )?;
    // A user's own directory in /etc: it could be written, were it not for the read-only mount.
    make(&format!("{copy}/ci1"), 0o700)?;
    own(&format!("{copy}/ci1"), accounts.get("ci1"))?;
    bind(&copy, "/etc")
}

/// Daemons that answer for the real host. Nor has systemd booted this one: what is below it has tests in a machine of its own.
fn name_services() -> Result<()> {
    for directory in ["/run/nscd", "/run/systemd"] {
        if Path::new(directory).is_dir() {
            tmpfs(directory)?;
        }
    }
    Ok(())
}

/// Empty state directories of root and of the keeper; root's is the one that is seen.
fn state(accounts: &Accounts) -> Result<()> {
    for name in ["root", "keeper"] {
        make(&format!("{STATE}/{name}"), 0o711)?;
    }
    own(&format!("{STATE}/keeper"), accounts.get(KEEPER))?;
    if !Path::new("/var/lib/jacamar").is_dir() {
        // A mount needs a place, and the real host gets none: a new /var/lib leads to the old one.
        let old = format!("{PRIVATE}/var-lib");
        make(&old, 0o755)?;
        bind("/var/lib", &old)?;
        fs::set_permissions(PRIVATE, Permissions::from_mode(0o711))?;
        tmpfs("/var/lib")?;
        for entry in fs::read_dir(&old).context("could not list /var/lib")? {
            let name = entry?.file_name();
            symlink(Path::new(&old).join(&name), Path::new("/var/lib").join(&name))?;
        }
        make("/var/lib/jacamar", 0o711)?;
    }
    bind(&format!("{STATE}/root"), "/var/lib/jacamar")
}
