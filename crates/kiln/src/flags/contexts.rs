//! `--build-context`.

use std::collections::BTreeMap;

use kiln_oci::Reference;

use crate::error::{Error, Result};

/// `NAME=PLACE`. Names are image names, and `x:latest` is `x`.
pub fn named_contexts(values: &[String]) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let (name, place) = value
            .split_once('=')
            .ok_or_else(|| Error::user(format!("invalid context value: {value}, expected key=value")))?;
        let name = Reference::parse(name)
            .map_err(|error| Error::user(format!("invalid context name {name}")).because(error))?
            .familiar();
        let name = name.strip_suffix(":latest").unwrap_or(&name);
        found.insert(name.to_owned(), place.to_owned());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        let values = ["alpine:latest=docker-image://x", "docker.io/library/b=dir", "reg.test/c:1=x=y"];
        let found = named_contexts(&values.map(str::to_owned)).unwrap();
        let expected = [("alpine", "docker-image://x"), ("b", "dir"), ("reg.test/c:1", "x=y")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(named_contexts(&["x".into()]).is_err());
        assert!(named_contexts(&["A B=x".into()]).is_err());
    }
}
