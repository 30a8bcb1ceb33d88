//! What the job sees of the file system.

use jacamar_plan::Level;
use testbed::host::{CI2, SHARED, Start, Started, Surroundings};

use crate::places;

/// Directories that are the job's own.
const PRIVATE: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

pub(crate) fn private_directories(surroundings: Surroundings) {
    for place in places(surroundings) {
        let name = format!("testbed-{}-{}", std::process::id(), place.level);
        let of_host: String =
            PRIVATE.iter().map(|directory| format!("echo host > {directory}/{name}-host; ")).collect();
        let made = Started::new(place.host.as_root(&["sh", "-c", &of_host])).finish();
        assert_eq!(made.code, 0, "{made}");
        let script = format!(
            "for d in /tmp /var/tmp /dev/shm; do echo content$d=$(ls -A $d); echo mode$d=$(stat -c %a $d); \
             true > $d/{name}-job && ln -s /etc/passwd $d/{name}-link && mkdir $d/{name}-dir && echo made$d=yes; done"
        );
        let ran = place.run("default", &script);
        for directory in PRIVATE {
            assert_eq!(ran.value(&format!("content{directory}")), "", "{place}: {ran}");
            assert_eq!(ran.value(&format!("mode{directory}")), "1777", "{place}: {ran}");
            assert_eq!(ran.value(&format!("made{directory}")), "yes", "{place}: {ran}");
        }
        let look = format!(
            "ls -d /tmp/{name}-* /var/tmp/{name}-* /dev/shm/{name}-*; rm /tmp/{name}-* /var/tmp/{name}-* /dev/shm/{name}-*"
        );
        let left = Started::new(place.host.as_root(&["sh", "-c", &look])).finish();
        let lines: Vec<&str> = left.out.lines().collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| line.ends_with("-host")), "{place}: {left}");
    }
}

/// Private directories of a user's jobs, as root sees them.
fn jobs(place: &testbed::host::Place<'_>, user: &str) -> Vec<String> {
    let base = format!("{}/tmp", place.state(user));
    let find = ["find", &base, "-mindepth", "1", "-maxdepth", "1", "-user", user];
    Started::new(place.host.as_root(&find)).finish().out.lines().map(str::to_owned).collect()
}

pub(crate) fn no_way_to_others(surroundings: Surroundings) {
    for place in places(surroundings) {
        let script = "echo secret > /tmp/secret; echo up; exec sleep 77777";
        let start = Start { user: CI2, command: &["sh", "-c", script], ..Start::default() };
        let other = place.start(&start);
        other.wait_for("up");
        let theirs = jobs(&place, CI2);
        assert!(!theirs.is_empty(), "{place}: the other job has no directory");
        // As the job sees it: under the name that the product uses.
        let seen = |path: &str| match place.level {
            Level::Root | Level::Capabilities => path.replace(&place.state(CI2), "/var/lib/jacamar"),
            Level::User => path.to_owned(),
        };
        let mut script = format!(
            "cat {SHARED}/custom-executor/script; ls {SHARED}/custom-executor; ls /var/lib/jacamar/tmp; "
        );
        for path in &theirs {
            script += &format!(
                "ls {0}; ls {0}/tmp; cat {0}/tmp/secret; true > {0}/x; cat {1}/tmp/secret; ",
                seen(path),
                path
            );
        }
        let ran = place.run("default", &script);
        assert_eq!(ran.out, "", "{place}: {ran}");
        let refused = ran.err.lines().filter(|line| line.contains("ermission denied")).count();
        assert!(refused >= 3 + 4 * theirs.len(), "{place}: {ran}");
        // Root finds it there: the attempt above had something to find.
        let secret =
            format!("cat {}", theirs.iter().map(|path| format!("{path}/tmp/secret ")).collect::<String>());
        let found = Started::new(place.host.as_root(&["sh", "-c", &secret])).finish();
        assert!(found.out.contains("secret"), "{place}: {found}");
        drop(other);
    }
}

pub(crate) fn system_is_read_only(surroundings: Surroundings) {
    for place in places(surroundings) {
        // Both belong to the user; the one in /usr lies on a mount of its own.
        let usr =
            Started::new(place.host.as_root(&["cat", &format!("{SHARED}/usr-directory")])).finish().ok();
        let script = format!(
            "export LC_ALL=C; for d in /etc/ci1 {usr}; do echo owner=$(stat -c %U $d); touch $d/x; mkdir $d/y; chmod 0755 $d; \
             mv $d $d.old; done; touch /usr/x /etc/x /boot/x"
        );
        let outside =
            Started::new(place.host.as_user("ci1", &["sh", "-c", &format!("cd {usr} && touch x && rm x")]))
                .finish();
        assert_eq!(outside.code, 0, "the user can write there outside: {outside}");
        let ran = place.run("default", &script);
        assert_eq!(ran.out, "owner=ci1\nowner=ci1\n", "{place}: {ran}");
        let read_only = ran.err.lines().filter(|line| line.contains("Read-only file system")).count();
        assert!(read_only >= 8, "{place}: {ran}");
        let mount = place.run(
            "default",
            "for d in /usr /etc /tmp; do mount -o remount,rw,bind $d && echo remounted=$d; umount $d && echo gone=$d; done; \
             unshare -Urm sh -c 'for d in /usr /etc /tmp /dev/shm /proc; do mount -o remount,rw,bind $d && echo remounted=$d; \
             umount $d && echo gone=$d; umount -l $d && echo gone=$d; done; true > /etc/ci1/x && echo written' ",
        );
        // In a namespace of its own /tmp is writable anyway: remounting it so gains nothing.
        let gained: Vec<&str> = mount.out.lines().filter(|line| *line != "remounted=/tmp").collect();
        assert!(
            gained.iter().all(|line| *line == "remounted=/dev/shm" || *line == "remounted=/proc"),
            "{place}: {mount}"
        );
    }
}

pub(crate) fn nothing_is_left_on_the_host(surroundings: Surroundings) {
    for place in places(surroundings) {
        let mounts_before = mounts(&place);
        // What its owner made hard to remove, names in the way of what is moved up, the top itself closed; and what is
        // bound on /tmp, by the name that only this job has.
        let script = r#"set -e; cd /tmp; mkdir -p a/b/c d; true > a/b/c/f; chmod 0 a/b/c; chmod 0 a; chmod 0500 d; ln -s / root
            mkfifo fifo
            perl -e 'for (1..3000) { mkdir "x" and chdir "x" or die } for (1..70) { mkdir "e$_" or die }'
            perl -e 'for (1..2500) { open my $f, ">", "many-$_" or die }'
            while read -r _ _ _ root at _; do if [ $at = /tmp ]; then bound=${root%/tmp}; fi; done < /proc/self/mountinfo
            echo bound=$bound
            for top in /var/lib/jacamar/tmp/${bound##*/} ~/.local/state/jacamar/tmp/${bound##*/}; do
                if [ -d $top ]; then
                    true > $top/deep-1; mkdir -p $top/deep-2/x $top/deep-3; chmod 0 $top; echo closed=yes
                fi
            done"#;
        let ran = place.run("default", script);
        assert_eq!(ran.code, 0, "{place}: {ran}");
        assert_eq!(ran.value("closed"), "yes", "{place}: {ran}");
        let id = ran.value("bound").rsplit('/').next().expect("a name").to_owned();
        assert!(id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()), "{place}: {ran}");
        // Directories of other tests come and go meanwhile, and are deep.
        let find = ["find", "/srv", "/home", "-maxdepth", "8", "-name", &format!("*{id}*")];
        assert_eq!(Started::new(place.host.as_root(&find)).finish().out, "", "{place}");
        assert_eq!(mounts(&place), mounts_before, "{place}");
    }
}

fn mounts(place: &testbed::host::Place<'_>) -> String {
    Started::new(place.host.as_root(&["cat", "/proc/self/mountinfo"])).finish().ok()
}
