//! Durations of `HEALTHCHECK`, such as `1m30s`; nanoseconds in the image config.

use super::quote;
use thiserror::Error;

/// Why a word is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DurationError {
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.word))]
    UnknownUnit { unit: String, word: String },
}

const NANOS: i64 = 1;
const MICROS: i64 = 1000 * NANOS;
const MILLIS: i64 = 1000 * MICROS;
const SECONDS: i64 = 1000 * MILLIS;
const MINUTES: i64 = 60 * SECONDS;
const HOURS: i64 = 60 * MINUTES;

/// Nanoseconds of a signed sequence of decimal numbers, each with a unit; `0` needs none.
pub fn parse_duration(word: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(word.to_owned());
    let (negative, mut rest) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(number_len);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(invalid());
        }
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(word.to_owned()));
        }
        let scale = unit_nanos(unit)
            .ok_or_else(|| DurationError::UnknownUnit { unit: unit.to_owned(), word: word.to_owned() })?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        total = whole
            .checked_mul(i128::from(scale))
            .and_then(|nanos| nanos.checked_add(fraction_nanos(fraction, scale)))
            .and_then(|nanos| nanos.checked_add(total))
            .filter(|nanos| *nanos <= i128::from(i64::MAX) + i128::from(negative))
            .ok_or_else(invalid)?;
        rest = tail;
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).map_err(|_| invalid())
}

fn unit_nanos(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => NANOS,
        "us" | "µs" | "μs" => MICROS,
        "ms" => MILLIS,
        "s" => SECONDS,
        "m" => MINUTES,
        "h" => HOURS,
        _ => return None,
    })
}

/// Digits past those of a nanosecond of an hour cannot matter.
const FRACTION_DIGITS_MAX: usize = 18;

fn fraction_nanos(digits: &str, scale: i64) -> i128 {
    let digits = &digits[..digits.len().min(FRACTION_DIGITS_MAX)];
    if digits.is_empty() {
        return 0;
    }
    let value: i128 = digits.parse().expect("ASCII digits, few enough for the type");
    value * i128::from(scale) / 10i128.pow(digits.len() as u32)
}

/// The shortest usual spelling: `1m30s`, `1.5ms`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (second, milli, micro) = (SECONDS as u64, MILLIS as u64, MICROS as u64);
    match nanos {
        0 => "0s".to_owned(),
        _ if nanos < micro => format!("{sign}{nanos}ns"),
        _ if nanos < milli => format!("{sign}{}µs", decimal(nanos, micro)),
        _ if nanos < second => format!("{sign}{}ms", decimal(nanos, milli)),
        _ => {
            let minutes = nanos / MINUTES as u64;
            let seconds = decimal(nanos % MINUTES as u64, second);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

fn decimal(value: u64, scale: u64) -> String {
    let digits = scale.ilog10() as usize;
    let fraction = format!("{:0digits$}", value % scale);
    match fraction.trim_end_matches('0') {
        "" => (value / scale).to_string(),
        fraction => format!("{}.{fraction}", value / scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_there_and_back() {
        for (word, nanos, shown) in [
            ("0", 0, "0s"),
            ("5s", 5 * SECONDS, "5s"),
            ("1m30s", 90 * SECONDS, "1m30s"),
            ("1.5h", 90 * MINUTES, "1h30m0s"),
            (".5ms", 500 * MICROS, "500µs"),
            ("-1.25s", -1250 * MILLIS, "-1.25s"),
            ("2562047h47m16.854775807s", i64::MAX, "2562047h47m16.854775807s"),
        ] {
            assert_eq!(parse_duration(word), Ok(nanos), "{word}");
            assert_eq!(format_duration(nanos), shown);
        }
    }

    #[test]
    fn bad_durations() {
        for (word, text) in [
            ("", "time: invalid duration \"\""),
            ("5", "time: missing unit in duration \"5\""),
            ("1x", "time: unknown unit \"x\" in duration \"1x\""),
            ("s", "time: invalid duration \"s\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse_duration(word).unwrap_err().to_string(), text);
        }
    }
}
