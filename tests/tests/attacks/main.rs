//! Attacks on the launch, from outside and from inside, and what happens when parts of it are killed; past attacks
//! on others, with their ids.

mod begin;
mod fails;
mod inside;
mod kills;
mod limits;
mod past;
mod storm;
mod worn;

use testbed::host::{Host, Place, Surroundings};

/// The three levels on this host.
fn places() -> [Place<'static>; 3] {
    Place::levels(Host::shared(), Surroundings::AsItIs)
}

/// The protections that a job of `default` has, printed by the shell itself.
const STATUS: &str = "while read -r name value; do case $name in \
    CapInh:|CapPrm:|CapEff:|CapBnd:|CapAmb:|NoNewPrivs:|Seccomp:) echo \"${name%:}=$value\";; esac; done < /proc/$$/status";

/// All of them, or it is half a sandbox.
#[track_caller]
fn assert_whole(ran: &testbed::host::Ran, place: &impl std::fmt::Display) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(ran.value(set), "0000000000000000", "{place}: {set}\n{ran}");
    }
    assert_eq!((ran.value("NoNewPrivs"), ran.value("Seccomp")), ("1", "2"), "{place}: {ran}");
}
