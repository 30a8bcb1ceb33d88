//! What a control group costs a start, and which way into it costs less. Each is a pair in turn, with the same idleness
//! before either, and which of the two begins changes from round to round.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{PipeReader, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::wait::{WaitStatus, waitpid};
use testbed::host::ControlGroup;

use crate::{IDLE, milliseconds};

/// Two ways to do one thing.
struct Pair<'a> {
    names: [&'static str; 2],
    ways: [Box<dyn Fn() -> Result<Duration> + 'a>; 2],
}

/// Prints a table, the second of each pair with what it takes more than the first.
pub(crate) fn measure(programs: &str, account: &str, samples: usize) -> Result<()> {
    let auth = format!("{programs}/jacamar-auth");
    let exec = |cgroup: &str| -> Result<Vec<String>> {
        let configuration = configuration(cgroup)?;
        let words =
            ["exec", "--user", account, "--profile", "default", "--configuration", &configuration, "--"];
        Ok([auth.as_str()]
            .iter()
            .chain(&words)
            .chain(&["/bin/true"])
            .map(|word| (*word).to_owned())
            .collect())
    };
    let (without, with) = (exec("none")?, exec("auto")?);
    // The same filter, of which one names a call that `exec` does not make: what it costs itself is in both.
    let old_kernel = std::env::current_exe()?.with_file_name("old-kernel").display().to_string();
    let lacking = |call: &str| -> Vec<String> {
        let words = [old_kernel.as_str(), "--without", call, "--"].map(str::to_owned);
        words.into_iter().chain(with.iter().cloned()).collect()
    };
    let (into, procs) = (lacking("pidfd_send_signal"), lacking("clone3"));
    let leaf = Leaf::make()?;
    let pairs = [
        Pair {
            names: ["exec without a control group", "exec with one"],
            ways: [Box::new(|| command(&without)), Box::new(|| command(&with))],
        },
        Pair {
            names: ["exec, CLONE_INTO_CGROUP", "exec, cgroup.procs"],
            ways: [Box::new(|| command(&into)), Box::new(|| command(&procs))],
        },
        Pair {
            names: ["child alone, CLONE_INTO_CGROUP", "child alone, cgroup.procs"],
            ways: [Box::new(|| leaf.child(Way::CloneInto)), Box::new(|| leaf.child(Way::Procs))],
        },
    ];
    println!("\n{:<34} {:>9} {:>9} {:>8}", "", "median", "more", "ratio");
    for pair in &pairs {
        pair.print(samples)?;
    }
    Ok(())
}

impl Pair<'_> {
    fn print(&self, samples: usize) -> Result<()> {
        let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        let mut more = Vec::new();
        for round in 0..=samples {
            let mut sample = [0.0, 0.0];
            let order = if round.is_multiple_of(2) { [0, 1] } else { [1, 0] };
            for which in order {
                std::thread::sleep(IDLE);
                let way = self.ways.get(which).context("two ways")?;
                *sample.get_mut(which).context("two ways")? = milliseconds(way()?);
            }
            // The first of each warms the page cache.
            if round > 0 {
                let [first, second] = sample;
                times.iter_mut().zip(sample).for_each(|(times, time)| times.push(time));
                more.push(second - first);
            }
        }
        let [first, second] = times.map(median);
        let [name, other] = self.names;
        println!("{name:<34} {first:>6.2} ms");
        println!("{other:<34} {second:>6.2} ms {:>6.2} ms {:>8.2}", median(more), second / first);
        Ok(())
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

/// Where control groups are made is all that it says.
fn configuration(cgroup: &str) -> Result<String> {
    let path = format!("/etc/jacamar/bench-{cgroup}.toml");
    let text = format!(
        "[general]\nexecutor = \"shell\"\ndata_dir = \"$HOME\"\ngitlab_server = \"https://gitlab.example.com\"\n\
         [auth]\ndownscope = \"setuid\"\n[sandbox]\ncgroup = \"{cgroup}\"\n"
    );
    fs::write(&path, text).with_context(|| format!("could not write {path}"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("it is ours")?;
    Ok(path)
}

fn command(words: &[String]) -> Result<Duration> {
    let (program, arguments) = words.split_first().context("no command")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let begin = Instant::now();
    let status = command.status().with_context(|| format!("could not start {words:?}"))?;
    let time = begin.elapsed();
    if !status.success() {
        bail!("{words:?} failed: {status}");
    }
    Ok(time)
}

/// A group as that of a stage, with the controllers that the host has for it.
struct Leaf {
    path: PathBuf,
    directory: File,
    _above: ControlGroup,
}

enum Way {
    CloneInto,
    Procs,
}

impl Leaf {
    fn make() -> Result<Self> {
        let above = ControlGroup::make()?.context("this host has no cgroup v2")?;
        let path = PathBuf::from(above.path()).join("x.scope");
        for controller in ["+cpu", "+io", "+memory", "+pids"] {
            let file = PathBuf::from(above.path()).join("cgroup.subtree_control");
            match fs::write(file, controller) {
                Ok(()) => {}
                // The root of the tree has not enabled it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("could not enable {controller}")),
            }
        }
        fs::create_dir(&path).context("could not make a group")?;
        let directory = File::open(&path).context("could not open the group")?;
        Ok(Self { path, directory, _above: above })
    }

    /// From the clone until a child that waited for its release in the group has ended.
    fn child(&self, way: Way) -> Result<Duration> {
        let (release, mut released) = pipe().context("could not make a pipe")?;
        let begin = Instant::now();
        let pid = match way {
            Way::CloneInto => jacamar_kernel::clone_into(0, self.directory.as_fd(), || wait_for(&release)),
            Way::Procs => jacamar_kernel::clone(0, || wait_for(&release)),
        };
        let pid = pid.context("could not clone")?;
        if let Way::Procs = way {
            fs::write(self.path.join("cgroup.procs"), pid.to_string()).context("could not move a child")?;
        }
        released.write_all(b"x").context("could not release a child")?;
        let ended = waitpid(pid, None).context("could not wait for a child")?;
        let time = begin.elapsed();
        if ended != WaitStatus::Exited(pid, 0) {
            bail!("a child ended with {ended:?}");
        }
        Ok(time)
    }
}

fn wait_for(mut release: &PipeReader) -> Infallible {
    let mut byte = [0];
    jacamar_kernel::exit_now(i32::from(release.read_exact(&mut byte).is_err()))
}
