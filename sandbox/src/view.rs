//! What the job sees of the file system: mount(2) in place, by descriptor, with the user's rights.

use std::os::fd::AsFd;

use jacamar_kernel::{Errno, FdPath, is_procfs, mount, open_directory, open_file_or_directory};
use jacamar_plan::{Mount, MountFlags, Step};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::child::{Child, Failure, Viewed, Worn};

/// Mounts of the host still arrive (automounts), ours never leave: mount_namespaces(7).
pub(crate) fn slave_mounts() -> Result<(), Errno> {
    mount(None, c"/", None, MountFlags::REC.and(MountFlags::SLAVE).0, None)
}

fn verify_proc() -> Result<(), Errno> {
    let proc = open(c"/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    if is_procfs(proc.as_fd())? { Ok(()) } else { Err(Errno::EMEDIUMTYPE) }
}

impl<'a> Child<'a, Worn> {
    /// All sources are opened first, because a mount hides later ones; then mounts in the plan's order.
    pub(crate) fn view(mut self) -> Result<Child<'a, Viewed>, Failure> {
        if self.is_due(&Step::VerifyProc) {
            self.plain(&Step::VerifyProc, verify_proc)?;
        }
        while let Step::OpenSource { .. } = self.step()? {
            let opened = open_directory(self.text(0)?);
            let source = self.done(opened)?;
            // Within its capacity: nothing is allocated.
            self.script.sources.push(source);
        }
        let mut next_source = 0;
        while let Step::Mount(_) = self.step()? {
            let mounted = self.mount_one(&mut next_source)?;
            self.done(mounted)?;
        }
        Ok(self.next())
    }

    /// The outer error is a plan that does not fit, the inner one the kernel's.
    fn mount_one(&self, next_source: &mut usize) -> Result<Result<(), Errno>, Failure> {
        let Step::Mount(planned) = self.step()? else { return Err(self.disorder()) };
        Ok(match planned {
            Mount::Bind { recursive, .. } => {
                let source = self.script.sources.get(*next_source).ok_or_else(|| self.disorder())?;
                *next_source += 1;
                let flags = if *recursive { MountFlags::BIND.and(MountFlags::REC) } else { MountFlags::BIND };
                let from = FdPath::new(source.as_fd());
                self.over(0, |target| mount(Some(from.as_c_str()), target, None, flags.0, None))?
            }
            Mount::ReadOnly { mounts } => {
                let mut result = Ok(());
                for (index, submount) in mounts.iter().enumerate() {
                    let flags = submount.remount_flags();
                    // A mount below the tree may be one on a file.
                    let place = self.text(index)?;
                    result = open_file_or_directory(place)
                        .and_then(|fd| mount(None, FdPath::new(fd.as_fd()).as_c_str(), None, flags.0, None));
                    if result.is_err() {
                        break;
                    }
                }
                result
            }
            Mount::Tmpfs { flags, .. } => {
                let options = self.text(1)?;
                self.over(0, |target| mount(Some(c"tmpfs"), target, Some(c"tmpfs"), flags.0, Some(options)))?
            }
            Mount::Mqueue { .. } => {
                self.over(0, |target| mount(Some(c"mqueue"), target, Some(c"mqueue"), Mount::PSEUDO.0, None))?
            }
            Mount::Proc { .. } => {
                // By name: the host's /proc is what names descriptors, and it was verified.
                mount(Some(c"proc"), c"/proc", Some(c"proc"), Mount::PSEUDO.0, Some(self.text(0)?))
            }
        })
    }

    /// Opens the directory that is covered, without following a link, and mounts on the descriptor.
    fn over(
        &self,
        text: usize,
        act: impl FnOnce(&std::ffi::CStr) -> Result<(), Errno>,
    ) -> Result<Result<(), Errno>, Failure> {
        let target = self.text(text)?;
        Ok(open_directory(target).and_then(|fd| act(FdPath::new(fd.as_fd()).as_c_str())))
    }
}
