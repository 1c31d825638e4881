//! The units of the configuration file: durations and amounts of disk.
//!
//! Source of the forms: BuildKit's `buildkitd.toml`: a duration is a number of seconds or text such as `48h` or `1h30m`; an amount
//! of disk is a number of bytes, text in units of 1024 (`512MB`), or a percentage of the disk that holds the state (`10%`).

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _};

/// A length of time: whole seconds, or a sequence of numbers with units (`ns`, `us`, `ms`, `s`, `m`, `h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// An amount of disk space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSpace {
    Bytes(u64),
    /// Hundredths of the disk.
    Percent(u8),
}

impl DiskSpace {
    /// The amount in bytes, on a disk of `disk_bytes`.
    pub fn bytes(self, disk_bytes: u64) -> u64 {
        match self {
            DiskSpace::Bytes(bytes) => bytes,
            DiskSpace::Percent(percent) => disk_bytes / 100 * u64::from(percent),
        }
    }

    /// Reads one from text.
    pub fn parse(text: &str) -> Result<DiskSpace, String> {
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.trim().parse() {
                Ok(percent) if percent <= 100 => Ok(DiskSpace::Percent(percent)),
                _ => Err(format!("`{text}` is no percentage between 0% and 100%")),
            };
        }
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => {
                return Err(format!(
                    "`{text}` is no amount of disk: expected such as `512MB`, `10GB` or `10%`"
                ));
            }
        };
        if let Ok(whole) = number.parse::<u64>() {
            return whole
                .checked_mul(1 << shift)
                .map(DiskSpace::Bytes)
                .ok_or_else(|| format!("`{text}` is more than any disk holds"));
        }
        match number.parse::<f64>() {
            Ok(part) if part.is_finite() => Ok(DiskSpace::Bytes((part * (1u64 << shift) as f64) as u64)),
            _ => Err(format!("`{text}` is no amount of disk: expected such as `512MB`, `10GB` or `10%`")),
        }
    }
}

impl Span {
    /// Reads one from text.
    pub fn parse(text: &str) -> Result<Span, String> {
        let wrong = || format!("`{text}` is no duration: expected such as `90s`, `48h` or `1h30m`");
        let mut rest = text.trim();
        if let Ok(seconds) = rest.parse::<u64>() {
            return Ok(Span(Duration::from_secs(seconds)));
        }
        let mut nanos = 0.0_f64;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let scale = match &rest[..unit] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return Err(wrong()),
            };
            nanos += number * scale;
            rest = &rest[unit..];
        }
        Duration::try_from_secs_f64(nanos / 1e9).map(Span).map_err(|_| wrong())
    }
}

/// What such a value may be in TOML.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Raw {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for DiskSpace {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Raw::deserialize(from)? {
            Raw::Number(bytes) => Ok(DiskSpace::Bytes(bytes)),
            Raw::Text(text) => DiskSpace::parse(&text).map_err(D::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Raw::deserialize(from)? {
            Raw::Number(seconds) => Ok(Span(Duration::from_secs(seconds))),
            Raw::Text(text) => Span::parse(&text).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_space() {
        assert_eq!(DiskSpace::parse("512MB"), Ok(DiskSpace::Bytes(512 << 20)));
        assert_eq!(DiskSpace::parse("1.5g"), Ok(DiskSpace::Bytes(3 << 29)));
        assert_eq!(DiskSpace::parse("10%"), Ok(DiskSpace::Percent(10)));
        assert_eq!(DiskSpace::Percent(10).bytes(1000), 100);
        assert!(DiskSpace::parse("110%").is_err());
        assert!(DiskSpace::parse("12 apples").is_err());
        assert!(DiskSpace::parse("99999999999P").is_err());
    }

    #[test]
    fn spans() {
        assert_eq!(Span::parse("48h"), Ok(Span(Duration::from_secs(48 * 3600))));
        assert_eq!(Span::parse("1h30m"), Ok(Span(Duration::from_secs(5400))));
        assert_eq!(Span::parse("90"), Ok(Span(Duration::from_secs(90))));
        for wrong in ["", "h", "5 days", "-3s", "1h3"] {
            assert!(Span::parse(wrong).is_err(), "{wrong}");
        }
    }
}
