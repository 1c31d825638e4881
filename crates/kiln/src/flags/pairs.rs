//! `--build-arg` and `--label`.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// `K=V`, or `K` whose value comes from the environment; without one there it is left out.
pub fn build_args(
    values: &[String],
    environment: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for value in values {
        match split(value)? {
            (key, Some(value)) => drop(found.insert(key.to_owned(), value.to_owned())),
            (key, None) => {
                if let Some(value) = environment(key) {
                    found.insert(key.to_owned(), value);
                }
            }
        }
    }
    Ok(found)
}

/// `K=V`, or `K` for an empty value.
pub fn labels(values: &[String]) -> Result<BTreeMap<String, String>> {
    values
        .iter()
        .map(|value| split(value).map(|(key, value)| (key.to_owned(), value.unwrap_or_default().to_owned())))
        .collect()
}

fn split(pair: &str) -> Result<(&str, Option<&str>)> {
    let (key, value) = match pair.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (pair, None),
    };
    if key.is_empty() {
        return Err(Error::user(format!("invalid key-value pair {pair:?}: empty key")));
    }
    Ok((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arguments_may_come_from_the_environment() {
        let environment = |name: &str| (name == "SET").then(|| "from env".to_owned());
        let found = build_args(&list(&["A=1", "B=x=y", "SET", "UNSET", "E=", "A=2"]), environment).unwrap();
        let expected = [("A", "2"), ("B", "x=y"), ("E", ""), ("SET", "from env")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(build_args(&list(&["=x"]), |_| None).is_err());
    }

    #[test]
    fn labels_never_do() {
        let found = labels(&list(&["a=1", "b"])).unwrap();
        assert_eq!(found["b"], "");
    }
}
