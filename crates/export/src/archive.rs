//! Image layouts as one archive: what goes in, in which order, and the small documents beside the blobs.
//!
//! The archive is an OCI image layout. For Docker there is a `manifest.json` too, which old engines read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kiln_layer::tar::{Entry, EntryKind};
use kiln_oci::{Descriptor, Digest, Index, Manifest, Reference, annotations, gojson, media_type};
use serde::Serialize;

use crate::error::ExportError;

/// Where blobs lie.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// One member of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path; folders end in `/`.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Its content.
    pub content: Content,
}

/// What a member holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// These bytes.
    Bytes(Bytes),
    /// A blob of the store.
    Blob(Box<Descriptor>),
}

impl Content {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Folder => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Blob(descriptor) => descriptor.size,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What stands behind the repository in a name, as image layouts have it: `tag`, `@digest` or `tag@digest`.
fn ref_name(name: &str) -> String {
    let Ok(reference) = Reference::parse(name) else { return name.to_owned() };
    let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
    format!("{}{digest}", reference.tag().unwrap_or_default())
}

/// The entries of the layout's own index: the image once for each of its names.
pub fn layout_entries(image: &Descriptor, names: &[String]) -> Vec<Descriptor> {
    if names.is_empty() {
        return vec![image.clone()];
    }
    names
        .iter()
        .map(|name| {
            image
                .clone()
                .with_annotation(annotations::CONTAINERD_IMAGE_NAME, name.clone())
                .with_annotation(annotations::REF_NAME, ref_name(name))
        })
        .collect()
}

/// The members of the archive, in order. `blobs` are all that hang on the image, itself included; `docker` is
/// the manifest for `manifest.json`, with the names that it gets there.
pub fn members(
    entries: Vec<Descriptor>,
    blobs: impl IntoIterator<Item = Descriptor>,
    docker: Option<(&Manifest, &[String])>,
) -> Result<Vec<Member>, ExportError> {
    let mut all: BTreeMap<String, Member> = BTreeMap::new();
    let mut add = |path: String, mode, content| {
        all.entry(path.clone()).or_insert(Member { path, mode, content });
    };
    add("oci-layout".into(), 0o444, Content::Bytes(Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#)));
    let index = gojson::to_vec(&Index::new(media_type::OCI_INDEX, entries))
        .map_err(|source| ExportError::Json { what: "index", source })?;
    add("index.json".into(), 0o644, Content::Bytes(index.into()));
    if let Some((manifest, names)) = docker {
        add("manifest.json".into(), 0o644, Content::Bytes(docker_manifest(manifest, names)?));
    }
    let mut algorithms = BTreeSet::new();
    for blob in blobs {
        algorithms.insert(blob.digest.algorithm());
        add(blob_path(&blob.digest), 0o444, Content::Blob(Box::new(blob)));
    }
    if !algorithms.is_empty() {
        add("blobs/".into(), 0o755, Content::Folder);
    }
    for algorithm in algorithms {
        add(format!("blobs/{}/", algorithm.as_str()), 0o755, Content::Folder);
    }
    // Sorted by path, which the map did.
    Ok(all.into_values().collect())
}

/// What `docker load` of old engines reads.
fn docker_manifest(manifest: &Manifest, names: &[String]) -> Result<Bytes, ExportError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        config: String,
        repo_tags: Option<Vec<String>>,
        layers: Option<Vec<String>>,
    }
    let tags = names
        .iter()
        .map(|name| match Reference::parse(name) {
            Ok(reference) => Ok(reference.familiar()),
            Err(source) => Err(ExportError::Name { name: name.clone(), source }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<String> = manifest.layers.iter().map(|layer| blob_path(&layer.digest)).collect();
    let entry = Entry {
        config: blob_path(&manifest.config.digest),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: (!layers.is_empty()).then_some(layers),
    };
    let json =
        gojson::to_vec(&[entry]).map_err(|source| ExportError::Json { what: "manifest.json", source })?;
    Ok(json.into())
}

/// Full names of a list separated by commas, with the default tag where they have none.
pub fn full_names(list: &str) -> Result<Vec<String>, ExportError> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    list.split(',')
        .map(|name| match Reference::parse(name) {
            Ok(reference) => Ok(reference.with_default_tag().to_string()),
            Err(source) => Err(ExportError::Name { name: name.to_owned(), source }),
        })
        .collect()
}

/// Writes one member's header; its content follows.
pub fn tar_entry(member: &Member) -> Entry {
    let kind = if member.content == Content::Folder { EntryKind::Dir } else { EntryKind::File };
    let mut entry = Entry::new(kind, member.path.trim_end_matches('/'));
    entry.mode = member.mode;
    entry.size = member.content.len();
    entry
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use kiln_layer::tar::Writer;
    use kiln_oci::{Algorithm, Hasher, Image};

    use super::*;

    fn sha512(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Writes the archive with this content for every blob, and lists it with the system's `tar`.
    fn listing(members: &[Member], content: &[u8]) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = Writer::new(std::fs::File::create(file.path()).unwrap());
        for member in members {
            archive.start(&tar_entry(member)).unwrap();
            match &member.content {
                Content::Folder => {}
                Content::Bytes(bytes) => archive.write_data(bytes).unwrap(),
                Content::Blob(_) => archive.write_data(content).unwrap(),
            }
        }
        archive.finish().unwrap();
        let output = Command::new("tar").args(["-tvf"]).arg(file.path()).env("TZ", "UTC").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn other_programs_read_it() {
        let content = b"content";
        let short = Descriptor::of(media_type::OCI_LAYER, content);
        let long = Descriptor::new(media_type::OCI_LAYER, sha512(content), content.len() as u64);
        let entries = layout_entries(&short, &["docker.io/library/a:b".to_owned()]);
        let members = members(entries, [short.clone(), long.clone(), short.clone()], None).unwrap();
        let lines = listing(&members, content);
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[0], "drwxr-xr-x 0/0 0 1970-01-01 00:00 blobs/");
        assert_eq!(
            lines[2],
            format!("-r--r--r-- 0/0 7 1970-01-01 00:00 blobs/sha256/{}", short.digest.hex())
        );
        assert_eq!(lines[4], format!("-r--r--r-- 0/0 7 1970-01-01 00:00 blobs/sha512/{}", long.digest.hex()));
        assert!(lines[5].starts_with("-rw-r--r-- 0/0") && lines[5].ends_with("index.json"), "{}", lines[5]);
        assert_eq!(lines[6], "-r--r--r-- 0/0 30 1970-01-01 00:00 oci-layout");
    }

    #[test]
    fn names_images_for_both_worlds() {
        let names = full_names("a,localhost:5000/b:c").unwrap();
        assert_eq!(names, ["docker.io/library/a:latest", "localhost:5000/b:c"]);
        assert!(full_names("a,").is_err());
        let image = Descriptor::of(media_type::OCI_MANIFEST, b"m");
        let entries = layout_entries(&image, &names);
        assert_eq!(entries[1].annotation(annotations::REF_NAME), Some("c"));
        assert_eq!(entries[1].annotation(annotations::CONTAINERD_IMAGE_NAME), Some("localhost:5000/b:c"));
        assert_eq!(layout_entries(&image, &[])[0], image);
        let digest = Digest::sha256_of("x");
        assert_eq!(ref_name(&format!("a@{digest}")), format!("@{digest}"));

        let config = Descriptor::of(media_type::OCI_CONFIG, &gojson::to_vec(&Image::default()).unwrap());
        let layer = Descriptor::of(media_type::OCI_LAYER, b"l");
        let manifest = Manifest::new(media_type::OCI_MANIFEST, config.clone(), vec![layer.clone()]);
        let text = docker_manifest(&manifest, &names).unwrap();
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            format!(
                r#"[{{"Config":"blobs/sha256/{}","RepoTags":["a:latest","localhost:5000/b:c"],"Layers":["blobs/sha256/{}"]}}]"#,
                config.digest.hex(),
                layer.digest.hex()
            )
        );
        let bare = Manifest::new(media_type::OCI_MANIFEST, config, Vec::new());
        let text = docker_manifest(&bare, &[]).unwrap();
        assert!(text.ends_with(br#""RepoTags":null,"Layers":null}]"#));
    }
}
