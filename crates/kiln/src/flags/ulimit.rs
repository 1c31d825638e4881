//! `--ulimit`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads `NAME=SOFT[:HARD]` and writes what the frontend reads: `nofile=1024:2048,…`. The last of a name counts.
pub fn ulimits(values: &[String]) -> Result<String> {
    let mut found = BTreeMap::new();
    for value in values {
        let wrong = |what: &str| Error::user(format!("invalid ulimit argument: {value}: {what}"));
        let (name, limits) = value.split_once('=').ok_or_else(|| wrong("expected NAME=SOFT[:HARD]"))?;
        if !NAMES.contains(&name) {
            return Err(wrong("invalid ulimit type").hint(format!("known are {}", NAMES.join(", "))));
        }
        let number = |text: &str| text.parse::<i64>().map_err(|_| wrong("not a number"));
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if soft != -1 && hard != -1 && soft > hard {
            return Err(wrong("ulimit soft limit must be less than or equal to hard limit"));
        }
        if soft == -1 && hard != -1 {
            return Err(wrong("ulimit soft limit must be less than or equal to hard limit"));
        }
        found.insert(name, format!("{name}={soft}:{hard}"));
    }
    Ok(found.into_values().collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_limit_is_both() {
        let values = ["nofile=1024:2048", "core=0", "nofile=10", "stack=5:-1"].map(str::to_owned);
        assert_eq!(ulimits(&values).unwrap(), "core=0:0,nofile=10:10,stack=5:-1");
        assert_eq!(ulimits(&[]).unwrap(), "");
        for wrong in ["nofile", "what=1", "nofile=x", "nofile=2:1", "nofile=-1:5"] {
            assert!(ulimits(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
