//! `--allow`.

use crate::error::{Error, Result};

const LOCAL_DELETE: &str = "buildx.local.delete";
const KNOWN: [&str; 3] = ["network.host", "security.insecure", "device"];

/// What the user allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Passed on to the daemon.
    pub entitlements: Vec<String>,
    /// A local output may delete files outside of the working directory.
    pub local_delete: bool,
}

/// Reads the values; an unknown one is an error.
pub fn entitlements(values: &[String]) -> Result<Allowed> {
    let mut found = Allowed::default();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let (name, argument) = match value.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (value.as_str(), None),
        };
        match (name, argument) {
            (LOCAL_DELETE, None) => found.local_delete = true,
            (LOCAL_DELETE, Some(_)) => {
                return Err(Error::user(format!("{LOCAL_DELETE} does not accept a value")));
            }
            ("device", _) | ("network.host" | "security.insecure", None) => {
                found.entitlements.push(value.clone())
            }
            _ => {
                return Err(Error::user(format!("unknown entitlement {value}"))
                    .hint(format!("known are {} and {LOCAL_DELETE}", KNOWN.join(", "))));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_out_whose_they_are() {
        let values =
            ["network.host", "device=vendor.test/gpu=all", "buildx.local.delete", ""].map(str::to_owned);
        let found = entitlements(&values).unwrap();
        assert_eq!(found.entitlements, ["network.host", "device=vendor.test/gpu=all"]);
        assert!(found.local_delete);
        for wrong in ["network.all", "buildx.local.delete=x", "network.host=1"] {
            assert!(entitlements(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
