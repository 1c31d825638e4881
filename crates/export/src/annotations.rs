//! Annotations asked for by options and frontends: `annotation[-thing][[platform]].key`.

use std::collections::BTreeMap;

use kiln_oci::Platform;

use crate::error::ExportError;

/// Annotations of the parts of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// Of the index.
    pub index: BTreeMap<String, String>,
    /// Of the descriptor of the index.
    pub index_descriptor: BTreeMap<String, String>,
    /// Of the manifest.
    pub manifest: BTreeMap<String, String>,
    /// Of the manifest's descriptor.
    pub manifest_descriptor: BTreeMap<String, String>,
}

/// Annotations by platform; those for all platforms are under the empty text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnotationGroups(BTreeMap<String, Annotations>);

/// A key taken apart.
struct Key<'a> {
    thing: &'a str,
    platform: Option<&'a str>,
    name: &'a str,
}

impl AnnotationGroups {
    /// Takes one entry if its key is an annotation's, and says whether it was.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<bool, ExportError> {
        let Some(key) = split_key(key) else { return Ok(false) };
        let platform = key.platform.map(Platform::parse).transpose();
        // An unknown thing is complained about before a bad platform is.
        let pick: fn(&mut Annotations) -> &mut BTreeMap<String, String> = match key.thing {
            "" | "manifest" => |annotations| &mut annotations.manifest,
            "manifest-descriptor" => |annotations| &mut annotations.manifest_descriptor,
            "index" => |annotations| &mut annotations.index,
            "index-descriptor" => |annotations| &mut annotations.index_descriptor,
            other => return Err(ExportError::AnnotationType(other.to_owned())),
        };
        let group = platform?.map(|platform| platform.to_string()).unwrap_or_default();
        pick(self.0.entry(group).or_default()).insert(key.name.to_owned(), value.to_owned());
        Ok(true)
    }

    /// Adds others; theirs replace ours.
    pub fn merge(&mut self, others: Self) {
        for (platform, other) in others.0 {
            let mine = self.0.entry(platform).or_default();
            mine.index.extend(other.index);
            mine.index_descriptor.extend(other.index_descriptor);
            mine.manifest.extend(other.manifest);
            mine.manifest_descriptor.extend(other.manifest_descriptor);
        }
    }

    /// The platforms that are named, each with its annotations.
    pub fn named_platforms(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str).filter(|platform| !platform.is_empty())
    }

    /// Whether there are any which only OCI's documents can hold in full.
    pub fn need_oci(&self) -> bool {
        self.0.values().any(|annotations| {
            !annotations.index.is_empty()
                || !annotations.index_descriptor.is_empty()
                || !annotations.manifest_descriptor.is_empty()
        })
    }

    /// What one platform's image gets (`None`: that of a result without platforms). Annotations of the index
    /// are everybody's.
    pub fn for_platform(&self, platform: Option<&Platform>) -> Annotations {
        let mut all = Annotations::default();
        for annotations in self.0.values() {
            all.index.extend(annotations.index.clone());
            all.index_descriptor.extend(annotations.index_descriptor.clone());
        }
        let own = platform.map(Platform::to_string).filter(|text| !text.is_empty());
        for key in std::iter::once(String::new()).chain(own) {
            if let Some(annotations) = self.0.get(&key) {
                all.manifest.extend(annotations.manifest.clone());
                all.manifest_descriptor.extend(annotations.manifest_descriptor.clone());
            }
        }
        all
    }
}

/// `annotation`, then maybe `-thing`, then maybe `[platform]`, then `.name`.
fn split_key(key: &str) -> Option<Key<'_>> {
    let rest = key.strip_prefix("annotation")?;
    let (thing, rest) = match rest.strip_prefix('-') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            rest.split_at(end)
        }
        None => ("", rest),
    };
    let (platform, rest) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (platform, rest) = rest.split_once(']')?;
            let holds = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'/' | b'-');
            if platform.is_empty() || !platform.bytes().all(holds) {
                return None;
            }
            (Some(platform), rest)
        }
        None => (None, rest),
    };
    let name = rest.strip_prefix('.')?;
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(Key { thing, platform, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(entries: &[(&str, &str)]) -> AnnotationGroups {
        let mut groups = AnnotationGroups::default();
        for (key, value) in entries {
            assert!(groups.insert(key, value).unwrap(), "{key}");
        }
        groups
    }

    #[test]
    fn sorts_by_thing_and_platform() {
        let groups = groups(&[
            ("annotation.a", "all"),
            ("annotation-manifest[linux/amd64].a", "amd"),
            ("annotation-manifest[linux/aarch64].b.c", "arm"),
            ("annotation-index.i", "1"),
            ("annotation-index-descriptor[linux/amd64].d", "2"),
            ("annotation-manifest-descriptor.m", "3"),
        ]);
        let amd = groups.for_platform(Some(&Platform::linux("amd64")));
        assert_eq!(amd.manifest["a"], "amd");
        let arm = groups.for_platform(Some(&Platform::linux("arm64")));
        assert_eq!((arm.manifest["a"].as_str(), arm.manifest["b.c"].as_str()), ("all", "arm"));
        let none = groups.for_platform(None);
        assert_eq!(none.manifest.len(), 1);
        assert_eq!((none.index["i"].as_str(), none.index_descriptor["d"].as_str()), ("1", "2"));
        assert_eq!(none.manifest_descriptor["m"], "3");
        assert_eq!(groups.named_platforms().collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
        assert!(groups.need_oci());
    }

    #[test]
    fn leaves_other_keys() {
        let mut groups = AnnotationGroups::default();
        for key in [
            "annotation",
            "annotation.",
            "annotations.x",
            "annotation-.x",
            "annotation[].x",
            "annotation.a b",
            "name",
        ] {
            assert!(!groups.insert(key, "v").unwrap(), "{key}");
        }
        let error = groups.insert("annotation-layer.x", "v").unwrap_err();
        assert_eq!(error.to_string(), "unrecognized annotation type layer");
        assert!(groups.insert("annotation[foo].x", "v").is_err());
    }
}
