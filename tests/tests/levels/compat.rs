//! The profile `compat`: setuid helpers work where they can, and the floor holds where nothing could end a job.

use jacamar_plan::Level;
use testbed::host::{BIN, Host, Started, Surroundings, compile};

use crate::places;

const STATUS: &str = "while read -r name value; do case $name in \
    Cap???:|NoNewPrivs:|Seccomp:) echo \"${name%:}=$value\";; esac; done < /proc/self/status";

/// A program of root's with the setuid bit.
fn setuid_copy(host: &Host, of: &str, name: &str) -> String {
    let path = format!("{BIN}/{name}");
    let line = format!("cp {of} {path}.$$ && chmod 4755 {path}.$$ && mv {path}.$$ {path}");
    let ran = Started::new(host.as_root(&["sh", "-c", &line])).finish();
    assert_eq!(ran.code, 0, "{ran}");
    path
}

pub(crate) fn setuid_helpers(surroundings: Surroundings) {
    let host = Host::shared();
    let id = setuid_copy(host, "/usr/bin/id", "setuid-id");
    let calls = setuid_copy(host, &compile(host, "calls"), "setuid-calls");
    for place in places(surroundings) {
        if place.level == Level::Capabilities {
            // Neither namespaces nor filter can be had there, so without a control group there is no floor.
            continue;
        }
        // 169 reboot, 155 pivot_root (not denied), with arguments that no kernel takes.
        let script = format!(
            "{STATUS}; echo euid=$({id} -u); printf 'acct native 163 -1 0 0 0 0 0\\nchroot native 161 -1 0 0 0 0 0\\n' | {calls}"
        );
        let ran = place.run("compat", &script);
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(ran.value(set), "0000000000000000", "{place}: {ran}");
        }
        assert_eq!(ran.value("Seccomp"), "2", "{place}: {ran}");
        match place.level {
            Level::Root => {
                assert_eq!(ran.value("NoNewPrivs"), "0", "{place}: {ran}");
                assert_ne!(ran.value("CapBnd"), "0000000000000000", "{place}: {ran}");
                assert_eq!(ran.value("euid"), "0", "{place}: {ran}");
                if cfg!(target_arch = "x86_64") {
                    // Root's own answer would be EFAULT (14), as that of chroot is: the filter holds for setuid programs.
                    assert_eq!(ran.value("acct"), "1", "{place}: {ran}");
                    assert_eq!(ran.value("chroot"), "14", "{place}: {ran}");
                }
            }
            Level::User | Level::Capabilities => {
                // In a user namespace a setuid bit has no effect.
                assert_eq!(ran.value("NoNewPrivs"), "1", "{place}: {ran}");
                assert_eq!(ran.value("euid"), place.user().uid.to_string(), "{place}: {ran}");
            }
        }
    }
}

/// Without a delegated control group the capability level cannot end a job of `compat`: refused, with what helps.
pub(crate) fn floor(surroundings: Surroundings) {
    for place in places(surroundings) {
        let ran = place.run("compat", "echo ran");
        if place.level == Level::Capabilities {
            assert_eq!(ran.code, 125, "{place}: {ran}");
            assert_eq!(ran.out, "", "{place}: {ran}");
            assert!(
                ran.err.contains("Delegate=yes") && ran.err.contains("systemctl daemon-reload"),
                "{place}: {ran}"
            );
        } else {
            assert_eq!(ran.ok(), "ran\n", "{place}");
        }
    }
}
