//! An interpreter of the instructions that seccomp filters are made of: what a program would answer to a call that this
//! kernel or this architecture cannot make.

use jacamar_kernel::Instruction;

/// `struct seccomp_data` of `include/uapi/linux/seccomp.h`.
pub(crate) struct Call {
    pub(crate) number: u32,
    pub(crate) arch: u32,
    pub(crate) arguments: [u64; 6],
}

/// `AUDIT_ARCH_*` of `include/uapi/linux/audit.h`.
pub(crate) const X86_64: u32 = 0xc000_003e;
pub(crate) const I386: u32 = 0x4000_0003;
pub(crate) const AARCH64: u32 = 0xc000_00b7;

pub(crate) const ALLOW: u32 = 0x7fff_0000;
pub(crate) const KILL_PROCESS: u32 = 0x8000_0000;
pub(crate) const ENOSYS: u32 = 0x0005_0000 | 38;
pub(crate) const EPERM: u32 = 0x0005_0000 | 1;

impl Call {
    fn load(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16.. => {
                let at = usize::try_from((offset - 16) / 8).expect("small");
                let half = if (offset - 16) % 8 == 4 { 32 } else { 0 };
                u32::try_from((self.arguments.get(at).expect("six arguments") >> half) & 0xffff_ffff)
                    .expect("masked")
            }
            _ => panic!("a load from {offset}"),
        }
    }

    /// The answer of a program.
    pub(crate) fn answer(&self, program: &[Instruction]) -> u32 {
        let (mut at, mut value) = (0, 0_u32);
        loop {
            let Instruction { code, jt, jf, k } = *program.get(at).expect("a program ends with a return");
            at += 1;
            let mut jump = |condition| at += usize::from(if condition { jt } else { jf });
            match code {
                0x20 => value = self.load(k),
                0x05 => at += usize::try_from(k).expect("small"),
                0x15 => jump(value == k),
                0x25 => jump(value > k),
                0x35 => jump(value >= k),
                0x45 => jump(value & k != 0),
                0x54 => value &= k,
                0x06 => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }
}
