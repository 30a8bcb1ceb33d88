//! System calls newer than Linux 4.18, for the program `old-kernel`.

/// All calls from this number on came after Linux 4.18, with the same numbers on all architectures
/// (`scripts/syscall.tbl`); those of x32 lie above it.
pub const FIRST_NEWER: u32 = 424;

/// Those that the product makes, with their numbers. A test compares the list with the sources of `jacamar-kernel`.
pub const OF_THE_PRODUCT: [(&str, u32); 5] = [
    ("pidfd_send_signal", 424),
    ("pidfd_open", 434),
    ("clone3", 435),
    ("close_range", 436),
    ("openat2", 437),
];
