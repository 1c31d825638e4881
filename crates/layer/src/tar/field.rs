//! The fields of a header: text and numbers.

/// Text up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let len = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..len]
}

/// A number: octal digits with blanks or NULs around, or GNU's base 256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let mut value: i64 =
            if negative { i64::from(first | 0xc0).wrapping_sub(256) } else { i64::from(first & 0x3f) };
        for &byte in rest {
            value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
        }
        return Some(value);
    }
    let text = text(field);
    let text = text.trim_ascii();
    let mut value: i64 = 0;
    for &byte in text {
        if !(b'0'..=b'7').contains(&byte) {
            return None;
        }
        value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?;
    }
    Some(value)
}

/// Decimal digits only, as extended headers have them.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Seconds with an optional sign and fraction: seconds rounded down, and nanoseconds.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut nanos = 0;
    for position in 0..9 {
        nanos = nanos * 10 + fraction.as_bytes().get(position).map_or(0, |digit| u32::from(digit - b'0'));
    }
    if negative && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"648\0", None),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn times() {
        for (text, value) in [
            ("1350244992.023960108", Some((1_350_244_992, 23_960_108))),
            ("5", Some((5, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.5", Some((-1, 500_000_000))),
            ("1.0000000009", Some((1, 0))),
            ("1.x", None),
            ("", None),
        ] {
            assert_eq!(time(text.as_bytes()), value, "{text}");
        }
    }
}
