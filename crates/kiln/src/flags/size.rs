//! Sizes as Docker reads them: `64m`, `1.5GiB`, `1000`.

use crate::error::{Error, Result};

/// Bytes of a size; the units are binary whatever their spelling.
pub fn bytes(text: &str) -> Result<i64> {
    let wrong = || {
        Error::user(format!("invalid size: '{text}'"))
            .hint("expected a number with a unit, such as 64m or 2g")
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = text[end..].strip_prefix(' ').unwrap_or(&text[end..]).to_ascii_lowercase();
    let unit = unit.strip_suffix('b').map_or(unit.as_str(), |short| short.strip_suffix('i').unwrap_or(short));
    let power = match unit {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let value = number * 1024f64.powi(power);
    if value.is_finite() && value < i64::MAX as f64 { Ok(value as i64) } else { Err(wrong()) }
}

/// The same, or `-1` for no limit.
pub fn memory_swap_bytes(text: &str) -> Result<i64> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_binary() {
        let cases = [
            ("0", 0),
            ("1000", 1000),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("32 kb", 32 << 10),
            ("2b", 2),
            ("1T", 1 << 40),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "-1", "m", "1x", "1.2.3", "99999999999p", "1  k", "ib"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(memory_swap_bytes("-1").unwrap(), -1);
    }
}
