//! How the runner writes a word for a shell.

/// Bash's ANSI-C quoting: bare if all characters are harmless, else `$'...'`.
pub(crate) fn ansi_c(text: &str) -> String {
    if text.is_empty() {
        return "''".into();
    }
    let mut quoted = String::with_capacity(text.len() + 8);
    let mut needed = false;
    for byte in text.bytes() {
        match byte {
            b',' | b'-' | b'.' | b'/' | b'0'..=b'9' | b'@' | b'A'..=b'Z' | b'_' | b'a'..=b'z' => {
                quoted.push(char::from(byte));
                continue;
            }
            b'\x07' => quoted.push_str("\\a"),
            b'\x08' => quoted.push_str("\\b"),
            b'\t' => quoted.push_str("\\t"),
            b'\n' => quoted.push_str("\\n"),
            b'\x0b' => quoted.push_str("\\v"),
            b'\x0c' => quoted.push_str("\\f"),
            b'\r' => quoted.push_str("\\r"),
            b'\'' => quoted.push_str("\\'"),
            b'\\' => quoted.push_str("\\\\"),
            b' '..=b'~' => quoted.push(char::from(byte)),
            other => quoted.push_str(&format!("\\x{other:02x}")),
        }
        needed = true;
    }
    if needed { format!("$'{quoted}'") } else { quoted }
}

/// `FF_POSIXLY_CORRECT_ESCAPES`: double quotes, and none at all around `;`, `'`, `{`, `~` or a newline.
pub(crate) fn posix(text: &str) -> String {
    if text.is_empty() {
        return "''".into();
    }
    let mut quoted = String::with_capacity(text.len() + 8);
    let mut needed = false;
    for c in text.chars() {
        match c {
            '`' | '"' | '\\' | '$' => {
                quoted.push('\\');
                needed = true;
            }
            ' ' | '!' | '#' | '%' | '&' | '(' | ')' | '*' | '<' | '=' | '>' | '?' | '[' | '|' => {
                needed = true
            }
            _ => {}
        }
        quoted.push(c);
    }
    if needed { format!("\"{quoted}\"") } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_as_the_runner_does() {
        for (text, expected) in [
            ("", "''"),
            ("a-b_c.d/e@f,1", "a-b_c.d/e@f,1"),
            ("it's $5", "$'it\\'s $5'"),
            ("a\nb\tc", "$'a\\nb\\tc'"),
            ("ü\u{1b}", "$'\\xc3\\xbc\\x1b'"),
            ("back\\slash", "$'back\\\\slash'"),
            ("~", "$'~'"),
        ] {
            assert_eq!(ansi_c(text), expected, "{text:?}");
        }
        assert_eq!(posix("a;id"), "a;id");
        assert_eq!(posix("$HOME x"), "\"\\$HOME x\"");
    }
}
