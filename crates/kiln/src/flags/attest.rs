//! `--attest`, `--sbom` and `--provenance`.

use std::collections::BTreeMap;

use super::{boolean, csv};
use crate::error::{Error, Result};

/// Attestation types with their attributes as the frontend reads them; `None` where one is switched off.
pub type Attestations = BTreeMap<String, Option<String>>;

/// Reads all three flags. The first mention of a type counts, and `--attest` is read first.
pub fn attestations(attest: &[String], provenance: Option<&str>, sbom: Option<&str>) -> Result<Attestations> {
    let short = |kind: &str, value: Option<&str>| {
        value.filter(|value| !value.is_empty()).map(|value| match boolean(value) {
            Some(wanted) => format!("type={kind},disabled={}", !wanted),
            None => format!("type={kind},{value}"),
        })
    };
    let all = attest.iter().cloned().chain(short("provenance", provenance)).chain(short("sbom", sbom));
    let mut found = Attestations::new();
    for value in all {
        let (kind, attributes) = one(&value)?;
        found.entry(kind).or_insert(attributes);
    }
    Ok(found)
}

fn one(value: &str) -> Result<(String, Option<String>)> {
    let mut kind = String::new();
    let mut disabled = false;
    let mut attributes = BTreeMap::new();
    for (key, value) in csv::pairs(value)? {
        match key.trim().to_ascii_lowercase().as_str() {
            "type" => kind = value,
            "disabled" => {
                disabled =
                    boolean(&value).ok_or_else(|| Error::user(format!("invalid value disabled={value}")))?;
            }
            _ => drop(attributes.insert(key, value)),
        }
    }
    if kind.is_empty() {
        return Err(Error::user("attestation type not specified")
            .hint("for example --attest type=provenance,mode=max"));
    }
    if disabled {
        return Ok((kind, None));
    }
    let fields: Vec<String> = std::iter::once(format!("type={kind}"))
        .chain(attributes.iter().map(|(key, value)| csv::quote(&format!("{key}={value}"))))
        .collect();
    Ok((kind, Some(fields.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthands_are_written_out() {
        let found = attestations(&[], Some("mode=max"), Some("true")).unwrap();
        assert_eq!(found["provenance"].as_deref(), Some("type=provenance,mode=max"));
        assert_eq!(found["sbom"].as_deref(), Some("type=sbom"));
        assert_eq!(attestations(&[], Some("false"), None).unwrap()["provenance"], None);
        assert!(attestations(&[], Some(""), None).unwrap().is_empty());
    }

    #[test]
    fn the_first_mention_counts() {
        let attest = ["type=sbom,b=2,\"a=x,y\"".to_owned()];
        let found = attestations(&attest, None, Some("0")).unwrap();
        assert_eq!(found["sbom"].as_deref(), Some("type=sbom,\"a=x,y\",b=2"));
        assert!(attestations(&["mode=max".into()], None, None).is_err());
        assert!(attestations(&["type=sbom,disabled=maybe".into()], None, None).is_err());
    }
}
