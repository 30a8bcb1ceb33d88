//! git over ssh, with a file of root's in /etc/ssh/ssh_config.d: dead in a user namespace unless its owner looks right.

use std::net::TcpListener;
use std::sync::LazyLock;

use testbed::host::{CI1, Host, SHARED, Started, Surroundings};

use crate::places;

pub(crate) fn client_reads_its_configuration(surroundings: Surroundings) {
    for place in places(surroundings) {
        let ran = place.run("default", "ssh -G testbed.invalid");
        assert_eq!(ran.code, 0, "{place} (ssh is needed: apt-get install openssh-client): {ran}");
        assert!(ran.out.contains("user from-the-root-owned-file"), "{place}: {ran}");
        assert!(!ran.err.contains("Bad owner"), "{place}: {ran}");
    }
}

/// An ssh server of `ci1`'s with a repository, on a port of its own. Root's file names the host, so the clone proves
/// that it was read.
fn server() -> &'static Started {
    static SERVER: LazyLock<Started> = LazyLock::new(|| {
        let host = Host::shared();
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let root_file = format!(
            "printf 'Host testbed-git\\n HostName 127.0.0.1\\n Port {port}\\n User {CI1}\\n BatchMode yes\\n' \
             > /etc/ssh/ssh_config.d/60-git.conf"
        );
        let prepared = Started::new(host.as_root(&["sh", "-c", &root_file])).finish();
        assert_eq!(prepared.code, 0, "{prepared}");
        let script = format!(
            "set -e; cd; mkdir -m 0700 .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; \
             cp .ssh/id_ed25519.pub .ssh/authorized_keys; ssh-keygen -q -t ed25519 -N '' -f .ssh/host_key; \
             echo \"[127.0.0.1]:{port} $(cut -d' ' -f1,2 .ssh/host_key.pub)\" > .ssh/known_hosts; \
             git init -q repository; cd repository; echo content > file; git add file; \
             git -c user.name=t -c user.email=t@t.invalid commit -qm first; cd; \
             printf 'HostKey %s/.ssh/host_key\\nPidFile none\\nUsePAM no\\nListenAddress 127.0.0.1:{port}\\nLogLevel VERBOSE\\n' \
             $HOME > sshd_config; echo prepared; exec $(PATH=$PATH:/usr/sbin command -v sshd) -D -e -f $HOME/sshd_config 2>&1"
        );
        let mut command = host.as_user(CI1, &["sh", "-c", &script]);
        command.env("HOME", &host.accounts().get(CI1).home);
        let started = Started::new(command);
        started.wait_for("Server listening");
        started
    });
    &SERVER
}

pub(crate) fn git_clone(surroundings: Surroundings) {
    let server = server();
    for place in places(surroundings) {
        if surroundings == Surroundings::Container {
            // glibc makes no thread where clone3 gets EPERM, and git fetches with one.
            let ran = place.run("default", "ssh testbed-git cat repository/file");
            assert_eq!((ran.code, ran.out.as_str()), (0, "content\n"), "{place}: {ran}");
            continue;
        }
        let ran = place.run(
            "default",
            "git clone -q ssh://testbed-git/home/ci1/repository /tmp/clone; echo code=$?; cat /tmp/clone/file",
        );
        assert_eq!(ran.value("code"), "0", "{place}: {ran}\n(server {}, shared {SHARED})", server.pid());
        assert!(ran.out.ends_with("content\n"), "{place}: {ran}");
    }
}
