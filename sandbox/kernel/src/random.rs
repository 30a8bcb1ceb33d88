//! getrandom(2).

use std::fmt::Write as _;

use nix::errno::Errno;

use crate::check;

/// Fills `bytes` (at most 256) with random bytes of the kernel.
///
/// # Errors
/// EINTR before the kernel's generator is ready; EIO for fewer bytes than asked for.
pub fn random(bytes: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the kernel writes at most `len` bytes (getrandom(2)).
    let length =
        check(unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0_u32) })?;
    if usize::try_from(length) == Ok(bytes.len()) { Ok(()) } else { Err(Errno::EIO) }
}

/// 128 random bits in hex: no two jobs meet, and nobody guesses it beforehand.
///
/// # Errors
/// As [`random`].
pub fn random_name() -> Result<String, Errno> {
    let mut bytes = [0_u8; 16];
    random(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    }))
}
