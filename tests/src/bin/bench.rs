//! What a start costs: bare spawn, bubblewrap with the same namespaces, mounts and filter, and ours; what a control group
//! costs of it; and what many supervisors at once cost.
//!
//! All in one run and in turn, with 100 ms of idleness before each sample: in a hot loop the kernel's locks for control
//! groups are free, on a real node they are not. Figures of one run can be compared, those of two cannot.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    reason = "a program of the testbed talks to its starter"
)]

#[path = "bench/groups.rs"]
mod groups;
#[path = "bench/many.rs"]
mod many;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const IDLE: Duration = Duration::from_millis(100);

struct Peer {
    name: &'static str,
    /// Uid and gid of an ordinary account, or ours.
    ids: Option<(u32, u32)>,
    command: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    /// Our own environment, which is the job's, and no other.
    inherits: bool,
    /// A file that is opened as standard input.
    input: Option<PathBuf>,
    samples: Vec<Duration>,
}

/// Arguments: DIRECTORY-OF-PROGRAMS ACCOUNT UID GID FILTER-FILE STATE-DIRECTORY SAMPLES. It stands in for the driver in one
/// sub-stage of a job, so that the environment names a record.
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [programs, account, uid, gid, filter, state, samples] = arguments.as_slice() else {
        bail!("bench is started by hack/bench");
    };
    let (uid, gid, samples): (u32, u32, usize) = (uid.parse()?, gid.parse()?, samples.parse()?);
    write_filter(filter)?;
    let ordinary = Some((uid, gid));
    let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
    let bubblewrap = format!(
        "bwrap --unshare-user --unshare-pid --unshare-ipc --die-with-parent --new-session --bind / / \
         --ro-bind /usr /usr --ro-bind /boot /boot --ro-bind /etc /etc --bind {state}/a /tmp --bind {state}/b /var/tmp \
         --dev-bind /dev /dev --tmpfs /dev/shm --proc /proc --cap-drop ALL --add-seccomp-fd 0 /bin/true"
    );
    let peer = |name, ids, command, environment| Peer {
        name,
        ids,
        command,
        environment,
        inherits: false,
        input: None,
        samples: Vec::new(),
    };
    let script = format!("{state}/script");
    std::fs::write(&script, "#!/bin/bash\n").context("could not write the empty script")?;
    let run = format!("{programs}/jacamar-auth run {script} step_script");
    let own_state = vec![("XDG_STATE_HOME", OsString::from(format!("{state}/user")))];
    let mut peers = vec![
        peer("spawn and exec of /bin/true", None, words("/bin/true"), vec![]),
        peer("the same as an ordinary account", ordinary, words("/bin/true"), vec![]),
        Peer {
            input: Some(filter.into()),
            ..peer("bwrap, same view and filter", ordinary, words(&bubblewrap), vec![])
        },
        peer(
            "jacamar exec, user level",
            ordinary,
            words(&format!("{programs}/jacamar exec --profile default -- /bin/true")),
            own_state,
        ),
        peer(
            "jacamar-auth exec, root level",
            None,
            words(&format!("{programs}/jacamar-auth exec --user {account} --profile default -- /bin/true")),
            vec![],
        ),
        Peer { inherits: true, ..peer("jacamar-auth run, empty script", None, words(&run), vec![]) },
        peer("jacamar --version", None, words(&format!("{programs}/jacamar --version")), vec![]),
    ];
    for round in 0..=samples {
        for peer in &mut peers {
            std::thread::sleep(IDLE);
            let sample = peer.run()?;
            // The first of each warms the page cache.
            if round > 0 {
                peer.samples.push(sample);
            }
        }
    }
    print(&mut peers)?;
    groups::measure(programs, account, samples)?;
    many::measure(programs, account)
}

fn print(peers: &mut [Peer]) -> anyhow::Result<()> {
    let bare = peers.first_mut().map(Peer::median).context("no peers")?;
    let bwrap = peers.get_mut(2).map(Peer::median).context("no bwrap")?;
    println!("{:<34} {:>9} {:>9} {:>8} {:>8}", "", "median", "least", "/ bare", "/ bwrap");
    for peer in peers {
        let median = peer.median();
        let least = peer.samples.first().copied().unwrap_or_default();
        let ratio = |to: Duration| median.as_secs_f64() / to.as_secs_f64();
        println!(
            "{:<34} {:>6.2} ms {:>6.2} ms {:>8.2} {:>8.2}",
            peer.name,
            milliseconds(median),
            milliseconds(least),
            ratio(bare),
            ratio(bwrap)
        );
    }
    Ok(())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Peer {
    fn run(&self) -> anyhow::Result<Duration> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).current_dir("/");
        if !self.inherits {
            command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/");
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let input = match &self.input {
            Some(path) => File::open(path).context("the filter is gone")?.into(),
            None => Stdio::null(),
        };
        command.stdin(input).stdout(Stdio::null()).stderr(Stdio::inherit());
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        let begin = Instant::now();
        let status = command.status().with_context(|| format!("could not start {}", self.name))?;
        let time = begin.elapsed();
        if !status.success() {
            bail!("{} failed: {status}", self.name);
        }
        Ok(time)
    }

    fn median(&mut self) -> Duration {
        self.samples.sort_unstable();
        self.samples.get(self.samples.len() / 2).copied().unwrap_or_default()
    }
}

/// The filter of `default`, as bubblewrap takes it: raw `struct sock_filter`.
fn write_filter(path: &str) -> anyhow::Result<()> {
    let profile = jacamar_site::profile::profile("default")?;
    let settings = profile.settings;
    let filter = jacamar_plan::Filter {
        native_only: settings.system_call_architectures.is_some(),
        rules: settings.system_call_filter.map(|setting| setting.value).unwrap_or_default(),
        families: settings.restrict_address_families.map(|setting| setting.value),
    };
    let bytes: Vec<u8> = jacamar_sandbox::compile(&filter)?
        .iter()
        .flat_map(|i| [&i.code.to_ne_bytes()[..], &[i.jt], &[i.jf], &i.k.to_ne_bytes()[..]].concat())
        .collect();
    std::fs::write(path, bytes).context("could not write the filter")
}
