//! Sizes such as `64m` or `1.5GiB`, in powers of 1024.

use thiserror::Error;

/// Why a word is not a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SizeError {
    #[error("invalid size: '{0}'")]
    Size(String),
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
}

/// Bytes of a human-readable size: a number, then optionally `b`, or one of `k m g t p` with `b` or
/// `ib` after it, in any case, with at most one space between.
pub fn parse_size(word: &str) -> Result<i64, SizeError> {
    let invalid = || SizeError::Size(word.to_owned());
    let last = word
        .char_indices()
        .rev()
        .find(|(_, character)| character.is_ascii_digit() || matches!(character, '.' | ' '))
        .ok_or_else(invalid)?;
    let (number, suffix) = match last {
        (at, ' ') => (&word[..at], &word[at + 1..]),
        (at, _) => word.split_at(at + 1),
    };
    let size: f64 = number.parse().map_err(|_| invalid())?;
    if !size.is_finite() || size < 0.0 {
        return Err(invalid());
    }
    let lower = suffix.to_ascii_lowercase();
    let scale = scale(&lower).ok_or(SizeError::Suffix(lower))?;
    Ok((size * scale) as i64)
}

fn scale(suffix: &str) -> Option<f64> {
    let (unit, rest) = match suffix.chars().next() {
        None => return Some(1.0),
        Some(unit) => (unit, &suffix[unit.len_utf8()..]),
    };
    let power = match unit {
        'b' if rest.is_empty() => return Some(1.0),
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        _ => return None,
    };
    matches!(rest, "" | "b" | "ib").then(|| 1024f64.powi(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (word, want) in
            [("32", 32), ("32b", 32), ("1k", 1024), ("1.5 MB", 1_572_864), ("2GiB", 2 << 30), ("1KIB", 1024)]
        {
            assert_eq!(parse_size(word), Ok(want), "{word}");
        }
        for word in ["", "x", "-1", "1x", "1kx", "1kbb", "1 2 3"] {
            assert!(parse_size(word).is_err(), "{word}");
        }
    }
}
