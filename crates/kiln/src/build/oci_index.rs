//! `index.json` of an OCI image layout on this machine: looked up for contexts and caches, written for outputs.

use std::path::Path;

use kiln_oci::Digest;
use serde_json::{Map, Value, json};

use crate::error::{Context as _, Error, Result};
use crate::files;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The digest under a tag or name. With a single entry, that one whatever it is called, as long as it has no other name.
pub fn find(dir: &Path, name: &str) -> Result<Option<Digest>> {
    let index = read(dir)?;
    let entries = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |entry: &&Value| {
        let annotations = &entry["annotations"];
        annotations[REF_NAME] == name || annotations[IMAGE_NAME] == name
    };
    let entry = match (entries.iter().rfind(named), entries) {
        (Some(entry), _) => entry,
        (None, [only]) if only["annotations"][REF_NAME].is_null() || name == "latest" => only,
        _ => return Ok(None),
    };
    let digest = entry["digest"].as_str().unwrap_or_default();
    Digest::parse(digest).map(Some).map_err(|error| {
        Error::environment(format!("`{}` has a broken index.json", dir.display())).because(error)
    })
}

/// Enters a descriptor under these names, and makes the folder a layout where it is none. An older entry of the same name
/// loses it.
pub fn put(dir: &Path, descriptor: &Value, names: &[Name]) -> Result<()> {
    let mut index = if dir.join("index.json").exists() { read(dir)? } else { json!({}) };
    index["schemaVersion"] = json!(2);
    if index["mediaType"].is_null() {
        index["mediaType"] = json!(INDEX_MEDIA_TYPE);
    }
    let mut entries = index["manifests"].as_array().cloned().unwrap_or_default();
    for name in names {
        let (tag, annotations) = name.annotations();
        entries.retain(|entry| entry["annotations"][REF_NAME] != tag);
        let mut entry = descriptor.clone();
        let mut all = entry["annotations"].as_object().cloned().unwrap_or_else(Map::new);
        all.extend(annotations);
        entry["annotations"] = Value::Object(all);
        entries.push(entry);
    }
    index["manifests"] = Value::Array(entries);
    files::write_atomic(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let text = serde_json::to_vec(&index).expect("a JSON value has only string keys");
    files::write_atomic(&dir.join("index.json"), &text)
}

/// What an entry is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A tag alone.
    Tag(String),
    /// An image name, of which the tag is a part.
    Image(String),
}

impl Name {
    fn annotations(&self) -> (String, Map<String, Value>) {
        match self {
            Name::Tag(tag) => (tag.clone(), Map::from_iter([(REF_NAME.to_owned(), json!(tag))])),
            Name::Image(name) => {
                let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
                let tag = if tag.contains('/') { "latest" } else { tag };
                let both = [(IMAGE_NAME.to_owned(), json!(name)), (REF_NAME.to_owned(), json!(tag))];
                (tag.to_owned(), Map::from_iter(both))
            }
        }
    }
}

fn read(dir: &Path) -> Result<Value> {
    let path = dir.join("index.json");
    let data = std::fs::read(&path).when(format!("read `{}`", path.display()))?;
    serde_json::from_slice(&data).when(format!("understand `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Digest::sha256_of("a"), Digest::sha256_of("b"));
        let descriptor = |digest: &Digest| json!({"mediaType": "m", "digest": digest.to_string(), "size": 1});
        put(dir.path(), &descriptor(&a), &[Name::Tag("latest".into())]).unwrap();
        put(dir.path(), &descriptor(&b), &[Name::Image("r.test:5000/x:v1".into())]).unwrap();
        assert_eq!(find(dir.path(), "latest").unwrap(), Some(a));
        assert_eq!(find(dir.path(), "v1").unwrap(), Some(b.clone()));
        assert_eq!(find(dir.path(), "r.test:5000/x:v1").unwrap(), Some(b.clone()));
        assert_eq!(find(dir.path(), "v2").unwrap(), None);
        put(dir.path(), &descriptor(&b), &[Name::Tag("latest".into())]).unwrap();
        assert_eq!(find(dir.path(), "latest").unwrap(), Some(b));
        assert!(dir.path().join("oci-layout").is_file());
    }

    #[test]
    fn no_layout_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(find(dir.path(), "latest").is_err());
        std::fs::write(dir.path().join("index.json"), "{").unwrap();
        assert!(find(dir.path(), "latest").is_err());
    }
}
