//! What a start costs: bare spawn, bubblewrap with the same namespaces, mounts and filter, and ours.
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

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
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
    samples: Vec<Duration>,
}

/// Arguments: DIRECTORY-OF-PROGRAMS ACCOUNT UID GID FILTER-FILE STATE-DIRECTORY SAMPLES
fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [programs, account, uid, gid, filter, state, samples] = arguments.as_slice() else {
        bail!("bench is started by hack/bench");
    };
    let (uid, gid, samples): (u32, u32, usize) = (uid.parse()?, gid.parse()?, samples.parse()?);
    write_filter(filter)?;
    let ordinary = Some((uid, gid));
    let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
    let script = format!(
        "exec bwrap --unshare-user --unshare-pid --unshare-ipc --die-with-parent --new-session --bind / / \
         --ro-bind /usr /usr --ro-bind /boot /boot --ro-bind /etc /etc --bind {state}/a /tmp --bind {state}/b /var/tmp \
         --dev-bind /dev /dev --tmpfs /dev/shm --proc /proc --cap-drop ALL --add-seccomp-fd 3 /bin/true 3<{filter}"
    );
    let peer =
        |name, ids, command, environment| Peer { name, ids, command, environment, samples: Vec::new() };
    let own_state = vec![("XDG_STATE_HOME", OsString::from(state))];
    let mut peers = vec![
        peer("spawn and exec of /bin/true", None, words("/bin/true"), vec![]),
        peer("the same as an ordinary account", ordinary, words("/bin/true"), vec![]),
        peer(
            "sh -c, which starts bwrap",
            ordinary,
            vec!["/bin/sh".into(), "-c".into(), "exec /bin/true".into()],
            vec![],
        ),
        peer(
            "bwrap, same view and filter",
            ordinary,
            vec!["/bin/sh".into(), "-c".into(), script.into()],
            vec![],
        ),
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
    let bare = peers.first_mut().map(Peer::median).context("no peers")?;
    let bwrap = peers.get_mut(3).map(Peer::median).context("no bwrap")?;
    println!("{:<34} {:>9} {:>9} {:>8} {:>8}", "", "median", "least", "/ bare", "/ bwrap");
    for peer in &mut peers {
        let median = peer.median();
        let least = peer.samples.first().copied().unwrap_or_default();
        let ratio = |to: Duration| median.as_secs_f64() / to.as_secs_f64();
        println!(
            "{:<34} {:>6.2} ms {:>6.2} ms {:>8.2} {:>8.2}",
            peer.name,
            median.as_secs_f64() * 1e3,
            least.as_secs_f64() * 1e3,
            ratio(bare),
            ratio(bwrap)
        );
    }
    Ok(())
}

impl Peer {
    fn run(&self) -> anyhow::Result<Duration> {
        let (program, arguments) = self.command.split_first().context("no command")?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/").current_dir("/");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
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

/// The filter of `default` as one program of the same size, as bubblewrap takes it: raw `struct sock_filter`.
fn write_filter(path: &str) -> anyhow::Result<()> {
    let profile = jacamar_site::profile::profile("default")?;
    let settings = profile.settings;
    let filter = jacamar_plan::Filter {
        native_only: settings.system_call_architectures.is_some(),
        rules: settings.system_call_filter.map(|setting| setting.value).unwrap_or_default(),
        families: settings.restrict_address_families.map(|setting| setting.value),
    };
    let longest = jacamar_sandbox::compile(&filter)?.into_iter().max_by_key(Vec::len).context("no filter")?;
    let bytes: Vec<u8> = longest
        .iter()
        .flat_map(|i| [&i.code.to_ne_bytes()[..], &[i.jt], &[i.jf], &i.k.to_ne_bytes()[..]].concat())
        .collect();
    std::fs::write(path, bytes).context("could not write the filter")
}
