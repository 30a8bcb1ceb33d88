//! The people of a host: passwd and group entries, the first uid of a person, and whether logins are closed.
//!
//! Every question to the name service is asked here, by the supervisor, before any namespace, clone or change
//! of ids: the service loads libraries and talks to sockets of the host (nsswitch.conf(5)). Nothing here says
//! whether an account may run a job.

mod current;
mod login_defs;
mod nologin;
mod nss;

pub use current::current;
pub use login_defs::{LoginDefsError, UID_MIN_FALLBACK, UidMin, login_defs, uid_min};
pub use nologin::{Nologin, NologinError, nologin};
pub use nss::{Found, Group, GroupName, NssError, exists, lookup};
