//! Who the job is, and what its groups let it do.

use jacamar_plan::Level;
use testbed::host::{CI1, Host, Ran, SHARED, Started, Surroundings};

use crate::places;

/// What `id` shows where only one group is mapped: "nogroup" of every distribution.
const OVERFLOW: u32 = 65534;

pub(crate) fn ids_and_groups(surroundings: Surroundings) {
    for place in places(surroundings) {
        let user = place.user();
        let ran = place.run(
            "default",
            "echo uid=$(id -u); echo gid=$(id -g); echo name=$(id -un); echo groups=$(id -G)",
        );
        assert_eq!(ran.code, 0, "{place}: {ran}");
        assert_eq!(ran.value("uid"), user.uid.to_string(), "{place}");
        assert_eq!(ran.value("gid"), user.gid.to_string(), "{place}");
        assert_eq!(ran.value("name"), user.name, "{place}");
        let mut groups: Vec<u32> =
            ran.value("groups").split(' ').map(|id| id.parse().expect("a gid")).collect();
        groups.sort_unstable();
        groups.dedup();
        let expected = match place.level {
            Level::Root | Level::Capabilities => user.groups.clone(),
            Level::User => vec![user.gid, OVERFLOW],
        };
        assert_eq!(groups, expected, "{place}");
    }
}

/// A directory of root's with a file and a setgid directory for each group of the host.
fn shared_files(host: &Host) -> String {
    let directory = format!("{SHARED}/groups");
    let mut script = format!("set -e; test ! -e {directory}.made || exit 0; mkdir -p {directory}; ");
    for group in &host.accounts().groups {
        let (name, gid) = (group.name, group.gid);
        script += &format!(
            "echo of-{name} > {directory}/{name}; chgrp {gid} {directory}/{name}; chmod 0640 {directory}/{name}; \
             mkdir {directory}/{name}.d; chgrp {gid} {directory}/{name}.d; chmod 2770 {directory}/{name}.d; "
        );
    }
    script += &format!("touch {directory}.made");
    // Checks run at the same time.
    let lock = format!("{SHARED}/groups.lock");
    let made: Ran = Started::new(host.as_root(&["flock", &lock, "sh", "-c", &script])).finish();
    assert_eq!(made.code, 0, "{made}");
    directory
}

pub(crate) fn files_of_each_group(surroundings: Surroundings) {
    for place in places(surroundings) {
        let directory = shared_files(place.host);
        let script = format!(
            "umask 0007; cd {directory}; for g in proj-a proj-b proj-c proj-other; do \
             echo read-$g=$(cat $g 2>/dev/null); \
             f=$g.d/$$; if true 2>/dev/null >$f; then echo write-$g=$(stat -c %g $f); rm $f; else echo write-$g=no; fi; done"
        );
        let ran = place.run("default", &script);
        for group in &place.host.accounts().groups {
            let (name, member) = (group.name, group.members.contains(&CI1));
            let text = if member { format!("of-{name}") } else { String::new() };
            assert_eq!(ran.value(&format!("read-{name}")), text, "{place}: {ran}");
            let own_group = match (member, place.level) {
                (false, _) => "no".into(),
                (true, Level::Root | Level::Capabilities) => group.gid.to_string(),
                // It has the group (the setgid directory gives it); its number cannot be shown.
                (true, Level::User) => OVERFLOW.to_string(),
            };
            assert_eq!(ran.value(&format!("write-{name}")), own_group, "{place}: {ran}");
        }
    }
}

pub(crate) fn chgrp_to_each_group(surroundings: Surroundings) {
    for place in places(surroundings) {
        let gids: Vec<String> =
            place.host.accounts().groups.iter().map(|group| group.gid.to_string()).collect();
        let script = format!(
            "cd; f=chgrp.$$; : > $f; for g in {}; do if chgrp $g $f 2>/dev/null; then echo $g=$(stat -c %g $f); \
             else echo $g=$(LC_ALL=C chgrp $g $f 2>&1 | sed 's/.*: //'); fi; done; rm $f",
            gids.join(" ")
        );
        let ran = place.run("default", &script);
        for group in &place.host.accounts().groups {
            let gid = group.gid.to_string();
            let expected = match (place.level, group.members.contains(&CI1)) {
                (Level::Root | Level::Capabilities, true) => gid.as_str(),
                // Not mapped in the namespace.
                (Level::Capabilities, false) | (Level::User, _) => "Invalid argument",
                (Level::Root, false) => "Operation not permitted",
            };
            assert_eq!(ran.value(&gid), expected, "{place}: {ran}");
        }
    }
}
