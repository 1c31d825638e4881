//! `--filter` of the cache's commands.

use crate::error::{Error, Result};

/// Filters as the daemon reads them, and the age given with `until` or `unused-for`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// `type==regular`, `inuse`, …
    pub expressions: Vec<String>,
    /// Nanoseconds.
    pub age_nanos: i64,
}

/// Reads `KEY=VALUE` pairs (`KEY!=VALUE`, `KEY~=VALUE`) and bare names. A pair is an equality for the daemon; `until` and
/// `unused-for` are an age.
pub fn filters(values: &[String]) -> Result<Filters> {
    let mut found = Filters::default();
    for value in values {
        let Some((key, text)) = value.split_once('=') else {
            found.expressions.push(value.clone());
            continue;
        };
        match key {
            "until" | "unused-for" => {
                if found.age_nanos != 0 {
                    return Err(Error::user("only one of until and unused-for can be given, once"));
                }
                found.age_nanos = duration_nanos(text)?;
            }
            "id" => found.expressions.push(format!("id~={text}")),
            _ if key.ends_with('!') || key.ends_with('~') => found.expressions.push(value.clone()),
            _ => found.expressions.push(format!("{key}=={text}")),
        }
    }
    Ok(found)
}

/// Reads `24h`, `1h30m`, `500ms` as Go does, and `7d`.
pub fn duration_nanos(text: &str) -> Result<i64> {
    let wrong =
        || Error::user(format!("invalid duration {text:?}")).hint("expected for example 24h or 1h30m");
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let nanos = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 86_400e9,
            _ => return Err(wrong()),
        };
        total += number * nanos;
        rest = &rest[unit..];
    }
    if text.is_empty() || total >= i64::MAX as f64 { Err(wrong()) } else { Ok(total as i64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_expressions() {
        let values = ["type=regular", "inuse", "until=1h30m", "id=abc", "description~=x"].map(str::to_owned);
        let found = filters(&values).unwrap();
        assert_eq!(found.expressions, ["type==regular", "inuse", "id~=abc", "description~=x"]);
        assert_eq!(found.age_nanos, 5_400_000_000_000);
        assert!(filters(&["until=1h".into(), "unused-for=2h".into()]).is_err());
        for wrong in ["", "5", "h", "1w", "1h5"] {
            assert!(duration_nanos(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration_nanos("1.5s").unwrap(), 1_500_000_000);
        assert_eq!(duration_nanos("2d").unwrap(), 172_800_000_000_000);
    }
}
