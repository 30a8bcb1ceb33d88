//! Files of a control group, as far as they can be read: a probe and a count take what is there.

use std::path::Path;

/// The text of a file; none where it is not there or not ours to read.
pub(crate) fn text(group: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(group.join(file)).ok()
}

/// A file with one number; `max` is none.
pub(crate) fn number(group: &Path, file: &str) -> Option<u64> {
    text(group, file)?.trim().parse().ok()
}

/// The value of a line `key value` of a file's text.
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim().parse().ok()
}

/// Quota and period of `cpu.max`, in microseconds; `max` is none.
pub(crate) fn cpu_max(group: &Path) -> Option<(u64, u64)> {
    let text = text(group, "cpu.max")?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some((quota.parse().ok()?, period.parse().ok()?))
}
