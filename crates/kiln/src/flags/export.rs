//! `--output` and `--annotation`.

use std::collections::BTreeMap;

use kiln_oci::Platform;

use super::csv;
use crate::error::{Error, Result};

/// One place that the result goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// `image`, `local`, `oci`, …
    pub kind: String,
    /// Its attributes, keys in lower case; without `dest`.
    pub attrs: BTreeMap<String, String>,
    /// Where on this machine; empty where not given.
    pub dest: String,
}

/// Reads `type=…,key=value` values; a bare path is a folder, and `-` a tar stream on standard output.
pub fn outputs(values: &[String]) -> Result<Vec<Output>> {
    values.iter().filter(|value| !value.is_empty()).map(|value| output(value)).collect()
}

fn output(value: &str) -> Result<Output> {
    let fields = csv::fields(value)?;
    if fields.len() == 1 && fields[0] == value && !value.starts_with("type=") {
        let kind = if value == "-" { "tar" } else { "local" };
        return Ok(Output { kind: kind.to_owned(), attrs: BTreeMap::new(), dest: value.to_owned() });
    }
    let mut attrs: BTreeMap<String, String> =
        csv::pairs(value)?.into_iter().map(|(key, value)| (key.trim().to_lowercase(), value)).collect();
    let dest = attrs.remove("dest").unwrap_or_default();
    match attrs.remove("type").filter(|kind| !kind.is_empty()) {
        Some(kind) => Ok(Output { kind, attrs, dest }),
        None => Err(Error::user("type is required for output").hint(format!("in --output {value}"))),
    }
}

/// An annotation: the exporter's attribute (`annotation-index[linux/amd64].key`) and its value.
pub type Annotation = (String, String);

/// Reads `[TYPE[[PLATFORM]],…:]KEY=VALUE`.
pub fn annotations(values: &[String]) -> Result<Vec<Annotation>> {
    let mut found = Vec::new();
    for value in values.iter().filter(|value| !value.is_empty()) {
        let (place, text) = value
            .split_once('=')
            .ok_or_else(|| Error::user(format!("invalid annotation {value:?}, expected key=value")))?;
        match place.split_once(':') {
            None => found.push((format!("annotation.{place}"), text.to_owned())),
            Some((kinds, key)) => {
                for kind in kinds.split(',') {
                    found.push((format!("annotation{}.{key}", annotation_kind(kind)?), text.to_owned()));
                }
            }
        }
    }
    Ok(found)
}

fn annotation_kind(text: &str) -> Result<String> {
    let wrong = || {
        Error::user(format!(
            "invalid annotation type {text:?}, expected type and optional platform in square brackets"
        ))
    };
    let (kind, platform) = match text.split_once('[') {
        Some((kind, rest)) => (kind, Some(rest.strip_suffix(']').ok_or_else(wrong)?)),
        None => (text, None),
    };
    if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
        return Err(wrong());
    }
    if !["index", "index-descriptor", "manifest", "manifest-descriptor"].contains(&kind) {
        return Err(Error::user(format!("unknown annotation type {kind:?}"))
            .hint("known are index, index-descriptor, manifest and manifest-descriptor"));
    }
    match platform {
        None => Ok(format!("-{kind}")),
        Some(platform) => {
            let parsed = Platform::parse(platform)
                .map_err(|error| Error::user(format!("invalid platform {platform:?}")).because(error))?;
            Ok(format!("-{kind}[{parsed}]"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(value: &str) -> Output {
        outputs(&[value.to_owned()]).unwrap().remove(0)
    }

    #[test]
    fn short_forms() {
        assert_eq!(
            one("out/dir"),
            Output { kind: "local".into(), attrs: BTreeMap::new(), dest: "out/dir".into() }
        );
        assert_eq!((one("-").kind.as_str(), one("-").dest.as_str()), ("tar", "-"));
    }

    #[test]
    fn long_form() {
        let found = one("type=image,Name=a,\"b,c=d\",dest=x");
        assert_eq!(found.kind, "image");
        assert_eq!(found.dest, "x");
        assert_eq!(found.attrs["b,c"], "d");
        assert_eq!(found.attrs["name"], "a");
        for wrong in ["dest=x,a=b", "type=image,push", "type="] {
            assert!(outputs(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
        assert!(outputs(&[String::new()]).unwrap().is_empty());
    }

    #[test]
    fn annotations_become_attributes() {
        let values = ["a=b=c", "index,manifest[linux/amd64]:org.test=x", "com.test.k=v"].map(str::to_owned);
        let found = annotations(&values).unwrap();
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "annotation.a",
                "annotation-index.org.test",
                "annotation-manifest[linux/amd64].org.test",
                "annotation.com.test.k"
            ]
        );
        for wrong in ["novalue", "bad:k=v", "index[:k=v", "index]:k=v", "index[x y]:k=v"] {
            assert!(annotations(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
