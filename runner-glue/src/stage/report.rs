//! The report of `run` on a descriptor of its own.

use std::fs::{File, OpenOptions};
use std::io::Write;

use anyhow::{Context, bail};
use jacamar_contract::frame;
use jacamar_contract::stage_report::{DESCRIPTOR, REPORT_BYTES, StageReport};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

/// Where the report goes, if anyone wants it.
#[derive(Debug)]
pub(super) struct Report(Option<File>);

impl Report {
    /// Opens the memfd at the contract's number once more: an inherited number belongs to nobody, and the shell gets
    /// no copy of ours. A pipe's inode would be root's, a memfd is open to all.
    pub(super) fn open(wanted: bool) -> anyhow::Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let name = || format!("descriptor {DESCRIPTOR} (report)");
        let path = format!("/proc/self/fd/{DESCRIPTOR}");
        let file = OpenOptions::new().write(true).open(path).with_context(name)?;
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).with_context(name)?;
        let fixed = SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK);
        let length = file.metadata().with_context(name)?.len();
        if !fixed || length != REPORT_BYTES as u64 {
            bail!("{} is not a memfd of {REPORT_BYTES} bytes, sealed to that length", name());
        }
        Ok(Self(Some(file)))
    }

    /// Writes it, once.
    pub(super) fn write(self, report: StageReport) -> anyhow::Result<()> {
        let Some(mut file) = self.0 else { return Ok(()) };
        let bytes = frame::encode(&report).context("the report cannot be encoded")?;
        file.write_all(&bytes).context("the report could not be written")
    }
}
