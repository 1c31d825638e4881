//! `.dockerignore` files: their text to patterns. Matching paths is the file transfer's business.

use crate::path::clean;

/// Longest line that is read, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Why a text is no ignore file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    #[error("bufio.Scanner: token too long")]
    LineTooLong,
}

/// The patterns of an ignore file, cleaned and relative to the context; exceptions begin with `!`.
pub fn parse_ignore(text: &[u8]) -> Result<Vec<String>, IgnoreError> {
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut patterns = Vec::new();
    for line in text.lines() {
        if line.len() >= LINE_BYTES_MAX {
            return Err(IgnoreError::LineTooLong);
        }
        if line.starts_with('#') || line.trim().is_empty() {
            continue;
        }
        let line = line.trim();
        let (mark, pattern) = match line.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", line),
        };
        let pattern = if pattern.is_empty() { String::new() } else { clean(pattern) };
        let relative = match pattern.strip_prefix('/') {
            Some(relative) if !relative.is_empty() => relative,
            _ => &pattern,
        };
        patterns.push(format!("{mark}{relative}"));
    }
    Ok(patterns)
}

/// Whether some pattern takes back what another one ignores.
pub(crate) fn has_exceptions(patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| pattern.trim().starts_with('!'))
}

/// Whether some pattern ignores all that is in the context.
pub(crate) fn ignores_everything(patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| matches!(clean(pattern.trim()).as_str(), "*" | "**" | "**/*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cleaned() {
        let text = "\u{feff}# comment\n\n  a/../b/ \r\n/abs\n! /keep//x\n!\n/\n #not\n";
        assert_eq!(parse_ignore(text.as_bytes()).unwrap(), ["b", "abs", "!keep/x", "!", "/", "#not"]);
    }

    #[test]
    fn long_lines_are_refused() {
        assert_eq!(parse_ignore(&[b'a'; LINE_BYTES_MAX]), Err(IgnoreError::LineTooLong));
    }

    #[test]
    fn kinds_of_patterns() {
        let patterns = |list: &[&str]| list.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        assert!(has_exceptions(&patterns(&["a", "!b"])) && !has_exceptions(&patterns(&["a"])));
        assert!(ignores_everything(&patterns(&["**"])) && !ignores_everything(&patterns(&[".*"])));
    }
}
