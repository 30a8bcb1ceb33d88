//! The report of `run` on a descriptor of its own.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, bail};
use jacamar_contract::frame;
use jacamar_contract::stage_report::{DESCRIPTOR, REPORT_BYTES, StageReport};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

/// Where the report goes, if anyone wants it.
#[derive(Debug)]
pub(super) struct Report(Option<File>);

impl Report {
    /// Takes the memfd at the contract's number, and looks at it before anything runs. The shell gets no copy.
    pub(super) fn open(wanted: bool) -> anyhow::Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let name = || format!("descriptor {DESCRIPTOR} (report)");
        let file = File::from(jacamar_kernel::inherited(DESCRIPTOR).with_context(name)?);
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).with_context(name)?;
        let fixed =
            SealFlag::from_bits_truncate(seals).contains(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK);
        let length = file.metadata().with_context(name)?.len();
        if !fixed || length != REPORT_BYTES as u64 {
            bail!("{} is not a memfd of {REPORT_BYTES} bytes, sealed to that length", name());
        }
        Ok(Self(Some(file)))
    }

    /// Writes it, once.
    pub(super) fn write(self, report: StageReport) -> anyhow::Result<()> {
        let Some(file) = self.0 else { return Ok(()) };
        let bytes = frame::encode(&report).context("the report cannot be encoded")?;
        // The place in the file is shared with the supervisor.
        file.write_all_at(&bytes, 0).context("the report could not be written")
    }
}
