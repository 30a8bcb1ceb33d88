//! A system call filter as rules by name. `sandbox` compiles it; this crate links no libc.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a filtered call gets. Never a kill: without no_new_privs a setuid helper runs under the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Answer {
    /// "Operation not permitted".
    #[serde(rename = "EPERM")]
    Eperm,
    /// "Function not implemented": the caller takes its fall-back.
    #[serde(rename = "ENOSYS")]
    Enosys,
    /// "Address family not supported by protocol".
    #[serde(rename = "EAFNOSUPPORT")]
    Eafnosupport,
}

impl Answer {
    /// Each answer, in the order in which a filter gives them.
    pub const ALL: [Self; 3] = [Self::Eperm, Self::Enosys, Self::Eafnosupport];

    /// The number, errno(3); the same on all architectures that have a filter.
    #[must_use]
    pub const fn errno(self) -> u16 {
        match self {
            Self::Eperm => 1,
            Self::Enosys => 38,
            Self::Eafnosupport => 97,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eperm => "EPERM",
            Self::Enosys => "ENOSYS",
            Self::Eafnosupport => "EAFNOSUPPORT",
        })
    }
}

/// One argument compared with one value.
///
/// Only the lower 32 bits are compared, as the kernel itself does for ioctl(2)'s request and socket(2)'s
/// family; comparing all 64 was snapd's CVE-2019-7303.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// Index of the argument, 0 to 5.
    pub argument: u8,
    /// Value of its lower 32 bits.
    pub equals: u32,
}

/// A call that is answered by the filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRule {
    /// Name, as in syscalls(2).
    pub call: String,
    /// Only with this argument; always, if absent.
    pub when: Option<Condition>,
    /// What the caller gets.
    pub answer: Answer,
}

/// `RestrictAddressFamilies=`, systemd.exec(5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressFamilies {
    /// These and no others.
    Only(Vec<u32>),
    /// All but these (`~`).
    Except(Vec<u32>),
}

/// What system calls the job can make. Default: all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// `SystemCallArchitectures=native`: calls of another ABI (i386, x32) and calls newer than this program
    /// get `ENOSYS`.
    pub native_only: bool,
    /// Denied calls.
    pub rules: Vec<CallRule>,
    /// Denied socket families.
    pub families: Option<AddressFamilies>,
}

impl Filter {
    /// Whether the filter would answer `call` whatever its arguments.
    #[must_use]
    pub fn denies(&self, call: &str) -> bool {
        self.rules.iter().any(|rule| rule.call == call && rule.when.is_none())
    }
}

/// Numbers of `include/linux/socket.h`, the same on every architecture.
const FAMILIES: [(&str, u32); 45] = [
    ("AF_UNIX", 1),
    ("AF_INET", 2),
    ("AF_AX25", 3),
    ("AF_IPX", 4),
    ("AF_APPLETALK", 5),
    ("AF_NETROM", 6),
    ("AF_BRIDGE", 7),
    ("AF_ATMPVC", 8),
    ("AF_X25", 9),
    ("AF_INET6", 10),
    ("AF_ROSE", 11),
    ("AF_DECnet", 12),
    ("AF_NETBEUI", 13),
    ("AF_SECURITY", 14),
    ("AF_KEY", 15),
    ("AF_NETLINK", 16),
    ("AF_PACKET", 17),
    ("AF_ASH", 18),
    ("AF_ECONET", 19),
    ("AF_ATMSVC", 20),
    ("AF_RDS", 21),
    ("AF_SNA", 22),
    ("AF_IRDA", 23),
    ("AF_PPPOX", 24),
    ("AF_WANPIPE", 25),
    ("AF_LLC", 26),
    ("AF_IB", 27),
    ("AF_MPLS", 28),
    ("AF_CAN", 29),
    ("AF_TIPC", 30),
    ("AF_BLUETOOTH", 31),
    ("AF_IUCV", 32),
    ("AF_RXRPC", 33),
    ("AF_ISDN", 34),
    ("AF_PHONET", 35),
    ("AF_IEEE802154", 36),
    ("AF_CAIF", 37),
    ("AF_ALG", 38),
    ("AF_NFC", 39),
    ("AF_VSOCK", 40),
    ("AF_KCM", 41),
    ("AF_QIPCRTR", 42),
    ("AF_SMC", 43),
    ("AF_XDP", 44),
    ("AF_MCTP", 45),
];

/// The number of an address family by its name in socket(2).
#[must_use]
pub fn address_family(name: &str) -> Option<u32> {
    FAMILIES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The name of an address family, or its number.
pub(crate) fn family_name(number: u32) -> String {
    FAMILIES
        .iter()
        .find(|(_, n)| *n == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

impl fmt::Display for AddressFamilies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, list) = match self {
            Self::Only(list) => ("", list),
            Self::Except(list) => ("~", list),
        };
        f.write_str(sign)?;
        f.write_str(&list.iter().map(|n| family_name(*n)).collect::<Vec<_>>().join(" "))
    }
}
