//! Hides masked values and tokens in the job log, across the borders of writes.

const MASK: &[u8] = b"[MASKED]";

/// The prefixes that the runner knows itself.
const TOKEN_PREFIXES: [&str; 14] = [
    "glpat-",
    "gloas-",
    "gldt-",
    "glrt-",
    "glcbt-",
    "glrtr-",
    "glptt-",
    "glft-",
    "glimt-",
    "glagent-",
    "glsoat-",
    "glffct-",
    "_gitlab_session=",
    "gltok-",
];

/// What one stage of the chain looks for.
#[derive(Clone, Debug)]
enum Pattern {
    /// These bytes.
    Phrase(Vec<u8>),
    /// What follows these bytes and may belong to a token; the prefix itself stays.
    Token(Vec<u8>),
}

/// A chain of replacements over a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Masker {
    stages: Vec<Stage>,
}

#[derive(Clone, Debug)]
struct Stage {
    pattern: Pattern,
    held: Vec<u8>,
}

fn token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'=')
}

impl Masker {
    /// Masks these values, longest first, then tokens of the known prefixes and of GitLab's.
    pub(crate) fn new(values: &[String], prefixes: &[String], all_default_tokens: bool) -> Masker {
        let mut phrases: Vec<&String> = values.iter().filter(|value| !value.is_empty()).collect();
        phrases.sort_by_key(|value| std::cmp::Reverse(value.len()));
        phrases.dedup();
        let known = TOKEN_PREFIXES.iter().take(if all_default_tokens { TOKEN_PREFIXES.len() } else { 1 });
        let mut tokens: Vec<String> =
            prefixes.iter().cloned().chain(known.map(|&prefix| prefix.to_owned())).collect();
        tokens.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
        tokens.dedup();
        let phrases = phrases.into_iter().map(|value| Pattern::Phrase(value.clone().into_bytes()));
        let tokens = tokens.into_iter().map(|prefix| Pattern::Token(prefix.into_bytes()));
        let stages = phrases.chain(tokens).map(|pattern| Stage { pattern, held: Vec::new() }).collect();
        Masker { stages }
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> Vec<u8> {
        self.stages.iter_mut().fold(data.to_vec(), |data, stage| stage.pass(data, false))
    }

    /// What was held back at the end.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.stages.iter_mut().fold(Vec::new(), |data, stage| stage.pass(data, true))
    }
}

impl Stage {
    fn pass(&mut self, data: Vec<u8>, last: bool) -> Vec<u8> {
        let mut input = std::mem::take(&mut self.held);
        input.extend(data);
        let (needle, token) = match &self.pattern {
            Pattern::Phrase(phrase) => (phrase, false),
            Pattern::Token(prefix) => (prefix, true),
        };
        let mut out = Vec::with_capacity(input.len());
        let mut rest = input.as_slice();
        while let Some(at) = find(rest, needle) {
            let end = at + needle.len();
            let after = rest.get(end..).unwrap_or_default();
            if !token {
                out.extend_from_slice(rest.get(..at).unwrap_or_default());
                out.extend_from_slice(MASK);
                rest = after;
                continue;
            }
            let length = after.iter().position(|&byte| !token_byte(byte));
            let Some(length) = length.or(last.then_some(after.len())) else {
                // The token may go on in the next write.
                out.extend_from_slice(rest.get(..at).unwrap_or_default());
                self.held = rest.get(at..).unwrap_or_default().to_vec();
                return out;
            };
            out.extend_from_slice(rest.get(..end).unwrap_or_default());
            if length > 0 {
                out.extend_from_slice(MASK);
            }
            rest = after.get(length..).unwrap_or_default();
        }
        let hold = if last { 0 } else { suffix_that_begins(rest, needle) };
        let cut = rest.len() - hold;
        out.extend_from_slice(rest.get(..cut).unwrap_or_default());
        self.held = rest.get(cut..).unwrap_or_default().to_vec();
        out
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The length of the longest end of the text that is a beginning of the pattern.
fn suffix_that_begins(text: &[u8], pattern: &[u8]) -> usize {
    let most = text.len().min(pattern.len().saturating_sub(1));
    (1..=most).rev().find(|&length| text.ends_with(pattern.get(..length).unwrap_or_default())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(chunks: &[&str]) -> String {
        let mut masker = Masker::new(&["s3cret".into(), "s3cret-long".into()], &[], true);
        let mut out = Vec::new();
        for chunk in chunks {
            out.extend(masker.write(chunk.as_bytes()));
        }
        out.extend(masker.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_hidden_across_writes() {
        assert_eq!(masked(&["a s3cret b"]), "a [MASKED] b");
        assert_eq!(masked(&["a s3", "cr", "et b"]), "a [MASKED] b");
        assert_eq!(masked(&["a s3cret-long b"]), "a [MASKED] b");
        assert_eq!(masked(&["a s3c", "at b"]), "a s3cat b");
    }

    #[test]
    fn tokens_keep_their_prefix() {
        assert_eq!(masked(&["glpat-abc_1 x"]), "glpat-[MASKED] x");
        assert_eq!(masked(&["url=https://glcbt-64_", "AbC@host"]), "url=https://glcbt-[MASKED]@host");
        assert_eq!(masked(&["glcbt-64"]), "glcbt-[MASKED]");
        assert_eq!(masked(&["glpat- x"]), "glpat- x");
    }
}
