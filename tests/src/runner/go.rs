//! The few functions of Go's library whose exact results reach a driver: paths, quoting, numbers, URLs.

/// `path.Clean`: shortest equal path, `.` for an empty one.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".into(),
        (false, false) => joined,
    }
}

/// `path.Join`: the parts that are not empty, cleaned.
pub(crate) fn join(parts: &[&str]) -> String {
    let kept: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    if kept.is_empty() { String::new() } else { clean(&kept.join("/")) }
}

/// `filepath.Rel`: how to get from one directory to another; `None` if only one of them is absolute.
pub(crate) fn rel(base: &str, target: &str) -> Option<String> {
    let (base, target) = (clean(base), clean(target));
    if base.starts_with('/') != target.starts_with('/') {
        return None;
    }
    let split = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect()
    };
    let (from, to) = (split(&base), split(&target));
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from.iter().skip(common).map(|_| "..".to_owned());
    let parts: Vec<String> = up.chain(to.iter().skip(common).cloned()).collect();
    Some(if parts.is_empty() { ".".into() } else { parts.join("/") })
}

/// The last part of a path.
pub(crate) fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// `strconv.Quote`: double quotes, with Go's escapes; `$` and backticks stay as they are.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)))
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `regexp.QuoteMeta`
pub(crate) fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// `strconv.Atoi`: a sign, digits, nothing else.
pub(crate) fn atoi(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.strip_prefix('+').unwrap_or(text).parse().ok()
}

/// `strconv.ParseBool`
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// `os.Expand`: `$NAME` and `${NAME}` by the mapping; one pass.
pub(crate) fn expand(text: &str, mapping: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let after = tail.get(1..).unwrap_or_default();
        if after.is_empty() {
            out.push('$');
            return out;
        }
        let (name, used) = shell_name(after);
        match (name.is_empty(), used) {
            // `${}` and `${` without an end are bad syntax: eaten.
            (true, 1..) => {}
            // A dollar that no name follows stays.
            (true, 0) => out.push('$'),
            (false, _) => out.push_str(&mapping(name)),
        }
        rest = after.get(used..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '#' | '$' | '@' | '!' | '?' | '-' | '0'..='9')
}

/// The name after a dollar, and how many bytes it took.
fn shell_name(text: &str) -> (&str, usize) {
    let first = text.chars().next().unwrap_or_default();
    if first == '{' {
        let inner = text.get(1..).unwrap_or_default();
        return match inner.find('}') {
            Some(end) => (inner.get(..end).unwrap_or_default(), end + 2),
            None => ("", 1),
        };
    }
    if is_special(first) {
        return (text.get(..1).unwrap_or_default(), 1);
    }
    let end = text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len());
    (text.get(..end).unwrap_or_default(), end)
}

/// The parts of a URL that the scripts use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: String,
    pub(crate) user: Option<String>,
    pub(crate) host: String,
    pub(crate) path: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Url {
        let text = text.split(['?', '#']).next().unwrap_or_default();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Url { path: text.to_owned(), ..Url::default() };
        };
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, authority),
        };
        Url { scheme: scheme.to_ascii_lowercase(), user, host: host.to_owned(), path: path.to_owned() }
    }

    pub(crate) fn is_http(&self) -> bool {
        self.scheme == "http" || self.scheme == "https"
    }

    pub(crate) fn only_scheme_and_host(&self) -> Url {
        Url { scheme: self.scheme.clone(), host: self.host.clone(), ..Url::default() }
    }

    /// The text without slashes at its end.
    pub(crate) fn trimmed(&self) -> String {
        self.to_string().trim_end_matches('/').to_owned()
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.scheme.is_empty() {
            write!(f, "{}:", self.scheme)?;
        }
        if !self.scheme.is_empty() && (!self.host.is_empty() || self.path.starts_with('/')) {
            f.write_str("//")?;
        }
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        write!(f, "{}{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_related_as_in_go() {
        assert_eq!(clean("/a//b/../c/."), "/a/c");
        assert_eq!(clean(""), ".");
        assert_eq!(join(&["/srv", "/group/proj"]), "/srv/group/proj");
        assert_eq!(join(&["", ".tmp"]), ".tmp");
        assert_eq!(rel("/srv/builds/g/p", "/srv/cache/g/p/k").unwrap(), "../../../cache/g/p/k");
        assert_eq!(rel("builds", "/cache"), None);
    }

    #[test]
    fn variables_are_expanded_once() {
        let map = |name: &str| format!("<{name}>");
        for (text, expected) in [
            ("a $B c", "a <B> c"),
            ("${B}C", "<B>C"),
            ("$5 & more", "<5> & more"),
            ("$$X", "<$>X"),
            ("cost: $", "cost: $"),
            ("$ x", "$ x"),
            ("${}x", "x"),
            ("${x", "x"),
            ("$ü", "$ü"),
        ] {
            assert_eq!(expand(text, map), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_read_strictly() {
        assert_eq!(atoi("42"), Some(42));
        assert_eq!(atoi("-5"), Some(-5));
        assert_eq!(atoi("+7"), Some(7));
        for bad in ["", " 42", "42 ", "4_2", "0x10", "99999999999999999999", "+-1"] {
            assert_eq!(atoi(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn urls_come_back_as_they_were() {
        for text in ["http://gitlab-ci-token:tok@127.0.0.1:8080/g/p.git", "file:///srv/p.git", "https://h"] {
            assert_eq!(Url::parse(text).to_string(), text);
        }
    }
}
