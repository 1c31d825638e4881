//! `--cache-from` and `--cache-to`.

use std::collections::BTreeMap;

use super::csv;
use crate::error::{Error, Result};

/// One cache to read or write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`, …
    pub kind: String,
    /// Its attributes, keys in lower case.
    pub attrs: BTreeMap<String, String>,
}

/// Reads `type=…,key=value` values, and bare references, of which one value may hold several.
pub fn cache_entries(values: &[String]) -> Result<Vec<CacheEntry>> {
    let mut found = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        if value.contains('=') {
            found.push(entry(value)?);
        } else {
            found.extend(csv::fields(value)?.into_iter().map(|reference| CacheEntry {
                kind: "registry".to_owned(),
                attrs: BTreeMap::from([("ref".to_owned(), reference)]),
            }));
        }
    }
    Ok(found)
}

fn entry(value: &str) -> Result<CacheEntry> {
    let mut attrs: BTreeMap<String, String> =
        csv::pairs(value)?.into_iter().map(|(key, value)| (key.to_lowercase(), value)).collect();
    match attrs.remove("type").filter(|kind| !kind.is_empty()) {
        Some(kind) => Ok(CacheEntry { kind, attrs }),
        None => Err(Error::user(format!("type required for {value:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_references_are_registry_caches() {
        let found =
            cache_entries(&["user/app:cache,other".into(), String::new(), "type=local,Dest=x".into()])
                .unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].kind.as_str(), found[1].attrs["ref"].as_str()), ("registry", "other"));
        assert_eq!((found[2].kind.as_str(), found[2].attrs["dest"].as_str()), ("local", "x"));
        assert!(cache_entries(&["src=x".into()]).is_err());
    }
}
