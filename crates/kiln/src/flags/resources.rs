//! `--resource` and the older flags that it replaces.

use std::collections::BTreeMap;

use super::size;
use crate::error::{Error, Result};

/// Reads `KEY=VALUE` and returns the frontend's attributes. Limits of zero are left out, so that a daemon that does not know
/// them is not asked for them.
pub fn resource_attrs(values: &[String]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for value in values {
        let (key, text) = value
            .split_once('=')
            .ok_or_else(|| Error::user(format!("invalid resource {value:?}, expected key=value")))?;
        let (key, text) = (key.trim(), text.trim());
        let invalid = |_| Error::user(format!("invalid value {text:?} for resource {key}"));
        let (attr, limit) = match key {
            "memory" => ("memory", positive(size::bytes(text).map_err(invalid)?)),
            "memory-swap" => ("memswap", nonzero(size::memory_swap_bytes(text).map_err(invalid)?)),
            "cpu-shares" => ("cpushares", positive(integer(text).map_err(invalid)?)),
            "cpu-period" => ("cpuperiod", positive(integer(text).map_err(invalid)?)),
            "cpu-quota" => ("cpuquota", positive(integer(text).map_err(invalid)?)),
            "cpuset-cpus" => ("cpusetcpus", text.to_owned()),
            "cpuset-mems" => ("cpusetmems", text.to_owned()),
            _ => return Err(Error::user(format!("unknown resource {key:?}"))),
        };
        if limit.is_empty() {
            found.remove(attr);
        } else {
            found.insert(attr.to_owned(), limit);
        }
    }
    Ok(found)
}

fn integer(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::user("not a number"))
}

fn positive(limit: i64) -> String {
    if limit > 0 { limit.to_string() } else { String::new() }
}

fn nonzero(limit: i64) -> String {
    if limit == 0 { String::new() } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn become_attributes_of_the_frontend() {
        let values = ["memory=1g", "memory-swap=-1", "cpu-quota=0", "cpuset-cpus=0-3", "cpu-shares=5"];
        let found = resource_attrs(&values.map(str::to_owned)).unwrap();
        let expected =
            [("cpusetcpus", "0-3"), ("cpushares", "5"), ("memory", "1073741824"), ("memswap", "-1")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        for wrong in ["memory", "memory=x", "cpus=1", "cpu-quota=1.5"] {
            assert!(resource_attrs(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
