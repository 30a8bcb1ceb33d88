//! Whose rights: wear the user, become the user, confine, and prove that there is no way back.

use jacamar_kernel::{Capabilities, Errno, capget, capset, set_groups, set_resgid, set_resuid};
use jacamar_plan::{Bounding, Identity, Step};
use nix::sys::prctl::get_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{chdir, getresgid, getresuid};

use crate::child::{Become, Child, Confined, Failure, Isolated, Proved, Viewed, Worn};
use crate::rlimit::{pair, resource};

/// What the change of identity takes, and nothing else of root's.
const CHANGE: u64 = CHANGE_IDS | Capabilities::SETPCAP | Capabilities::SYS_ADMIN;
/// All that the capability level has outside of a user namespace.
const CHANGE_IDS: u64 = Capabilities::SETGID | Capabilities::SETUID;

fn worn(sys_admin: bool) -> Result<(), Errno> {
    let (effective, permitted) = if sys_admin { (Capabilities::SYS_ADMIN, CHANGE) } else { (0, CHANGE_IDS) };
    capset(Capabilities { effective, permitted, inheritable: 0 })
}

fn raised(sys_admin: bool) -> Result<(), Errno> {
    let change = if sys_admin { CHANGE } else { CHANGE_IDS };
    capset(Capabilities { effective: change, permitted: change, inheritable: 0 })
}

fn sys_admin_alone() -> Result<(), Errno> {
    let alone = Capabilities::SYS_ADMIN;
    capset(Capabilities { effective: alone, permitted: alone, inheritable: 0 })
}

impl<'a> Child<'a, Isolated> {
    /// From here on every file is opened and every mount made with the user's rights. Real and saved uid stay, so
    /// the user can neither signal nor trace nor limit us.
    pub(crate) fn wear(mut self) -> Result<Child<'a, Worn>, Failure> {
        if let Step::SetGroups { groups } = self.step()? {
            let result = set_groups(groups);
            self.done(result)?;
            let Step::WearGid { gid } = *self.step()? else { return Err(self.disorder()) };
            self.done(set_resgid(None, Some(gid), None))?;
            let Step::WearUid { uid } = *self.step()? else { return Err(self.disorder()) };
            self.done(set_resuid(None, Some(uid), None))?;
            let Step::WearCapabilities { sys_admin } = *self.step()? else { return Err(self.disorder()) };
            self.done(worn(sys_admin))?;
            self.undumpable()?;
        } else if matches!(self.script.identity, Identity::Become(_)) {
            return Err(self.disorder());
        }
        Ok(self.next())
    }
}

impl<'a> Child<'a, Viewed> {
    /// The user is the only identity.
    pub(crate) fn become_user(mut self) -> Result<Child<'a, Become>, Failure> {
        if let Step::RaiseCapabilities { sys_admin } = *self.step()? {
            self.done(raised(sys_admin))?;
        }
        if self.is_due(&Step::CoreLimit) {
            let (soft, hard) = self.script.core;
            self.done(setrlimit(Resource::RLIMIT_CORE, soft, hard))?;
        }
        while let Step::SetLimit { limit } = self.step()? {
            let (soft, hard) = pair(limit);
            let set = setrlimit(resource(limit.resource), soft, hard);
            self.done(set)?;
        }
        if let Step::DropBounding { last } = *self.step()? {
            // Needs CAP_SETPCAP: refused once the ids are gone.
            let dropped = (0..=last).try_for_each(jacamar_kernel::bounding_drop);
            self.done(dropped)?;
        }
        if self.is_due(&Step::KeepCapabilities) {
            self.plain(&Step::KeepCapabilities, || nix::sys::prctl::set_keepcaps(true))?;
        }
        if let Step::BecomeGid { gid } = *self.step()? {
            self.done(set_resgid(Some(gid), Some(gid), Some(gid)))?;
            let Step::BecomeUid { uid } = *self.step()? else { return Err(self.disorder()) };
            self.done(set_resuid(Some(uid), Some(uid), Some(uid)))?;
            if self.is_due(&Step::KeepSysAdmin) {
                self.plain(&Step::KeepSysAdmin, sys_admin_alone)?;
            }
            self.undumpable()?;
        } else if matches!(self.script.identity, Identity::Become(_)) {
            return Err(self.disorder());
        }
        Ok(self.next())
    }
}

impl<'a> Child<'a, Become> {
    /// What cannot be undone. The filter is loaded last but one, so that it need allow nothing of the above; the
    /// capabilities go after it, because without no_new_privs loading takes CAP_SYS_ADMIN.
    pub(crate) fn confine(mut self) -> Result<Child<'a, Confined>, Failure> {
        let Step::ChangeDirectory { .. } = self.step()? else { return Err(self.disorder()) };
        let entered = chdir(self.text(0)?);
        self.done(entered)?;
        // Each change of ids cleared it.
        self.die_with_supervisor()?;
        if self.step()? != &Step::CloseDescriptors {
            return Err(self.disorder());
        }
        let kept = self.script.kept(self.pipes);
        self.done(jacamar_kernel::close_all_but(&kept))?;
        if self.is_due(&Step::NoNewPrivileges) {
            self.plain(&Step::NoNewPrivileges, nix::sys::prctl::set_no_new_privs)?;
        }
        if let Step::Filter { .. } = self.step()? {
            let program = self.script.filter.as_deref().ok_or_else(|| self.disorder())?;
            let loaded = jacamar_kernel::load_filter(program);
            self.done(loaded)?;
        }
        self.plain(&Step::DropCapabilities, || capset(Capabilities::default()))?;
        self.plain(&Step::ClearAmbient, jacamar_kernel::ambient_clear)?;
        Ok(self.next())
    }
}

impl<'a> Child<'a, Confined> {
    /// Never earlier: with file capabilities `setuid(0)` would succeed and be the attack.
    pub(crate) fn prove(mut self) -> Result<Child<'a, Proved>, Failure> {
        if self.step()? != &Step::Prove {
            return Err(self.disorder());
        }
        let proved = self.no_way_back();
        self.done(proved)?;
        Ok(self.next())
    }

    fn no_way_back(&mut self) -> Result<(), Errno> {
        let (uid, gid) = match &self.script.identity {
            Identity::Own { uid, gid } => (*uid, *gid),
            Identity::Become(wear) => {
                let count = jacamar_kernel::get_groups(&mut self.script.groups)?;
                // The kernel keeps them sorted, and so does the plan.
                if self.script.groups.get(..count) != Some(wear.groups.as_slice()) {
                    return Err(Errno::EBADMSG);
                }
                (wear.uid, wear.gid)
            }
        };
        let (uids, gids) = (getresuid()?, getresgid()?);
        let same = [uids.real, uids.effective, uids.saved].iter().all(|id| id.as_raw() == uid)
            && [gids.real, gids.effective, gids.saved].iter().all(|id| id.as_raw() == gid);
        if !same || capget()? != Capabilities::default() || get_dumpable()? {
            return Err(Errno::EBADMSG);
        }
        if let Bounding::DropTo(last) = self.script.confine.bounding {
            for capability in 0..=last {
                if jacamar_kernel::bounding_has(capability)? {
                    return Err(Errno::EBADMSG);
                }
            }
        }
        if self.script.confine.no_new_privs && !nix::sys::prctl::get_no_new_privs()? {
            return Err(Errno::EBADMSG);
        }
        // These must fail; success would be the way back, so the child ends.
        for other in self.script.no_way_back.iter().copied().filter(|other| *other != uid) {
            let ways =
                [set_resuid(None, Some(other), None), set_resuid(Some(other), Some(other), Some(other))];
            if ways.iter().chain([&jacamar_kernel::set_uid(other)]).any(Result::is_ok) {
                return Err(Errno::ENOTRECOVERABLE);
            }
        }
        Ok(())
    }
}
