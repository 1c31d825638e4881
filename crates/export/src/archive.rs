//! Image layouts as one archive: what goes in, in which order, and the small documents beside the blobs.
//!
//! The archive is an OCI image layout. For Docker there is a `manifest.json` too, which old engines read.
//!
//! Blobs come in the order in which they are given, each once: layers first, so that the place of one does not depend on
//! anything that is made of it. What names them comes last.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Write};

use bytes::Bytes;
use kiln_layer::tar::{Entry, EntryKind, Writer};
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

/// The members of the archive, in order. `blobs` are all that hang on the image, itself included, layers first; `docker`
/// is the manifest for `manifest.json`, with the names that it gets there.
pub fn members(
    entries: Vec<Descriptor>,
    blobs: impl IntoIterator<Item = Descriptor>,
    docker: Option<(&Manifest, &[String])>,
) -> Result<Vec<Member>, ExportError> {
    let mut all = blob_members(blobs);
    let mut add = |path: &str, mode, content| all.push(Member { path: path.to_owned(), mode, content });
    let index = gojson::to_vec(&Index::new(media_type::OCI_INDEX, entries))
        .map_err(|source| ExportError::Json { what: "index", source })?;
    add("index.json", 0o644, Content::Bytes(index.into()));
    if let Some((manifest, names)) = docker {
        add("manifest.json", 0o644, Content::Bytes(docker_manifest(manifest, names)?));
    }
    add("oci-layout", 0o444, Content::Bytes(Bytes::from_static(br#"{"imageLayoutVersion":"1.0.0"}"#)));
    Ok(all)
}

/// The members of these blobs. A folder stands before the first thing in it: later blobs change nothing before them.
fn blob_members(blobs: impl IntoIterator<Item = Descriptor>) -> Vec<Member> {
    let mut all = Vec::new();
    let folder = |path| Member { path, mode: 0o755, content: Content::Folder };
    let (mut seen, mut algorithms) = (HashSet::new(), BTreeSet::new());
    for blob in blobs {
        if !seen.insert(blob.digest.clone()) {
            continue;
        }
        if algorithms.is_empty() {
            all.push(folder("blobs/".to_owned()));
        }
        if algorithms.insert(blob.digest.algorithm()) {
            all.push(folder(format!("blobs/{}/", blob.digest.algorithm().as_str())));
        }
        let path = blob_path(&blob.digest);
        all.push(Member { path, mode: 0o444, content: Content::Blob(Box::new(blob)) });
    }
    all
}

/// Where in the archive the content of a blob begins whose digest and size are not known yet, if it comes behind `blobs` and is none of
/// them. Its digest is one of sha256, and its size below 8 GiB: what is larger has a longer header.
pub fn next_content(blobs: impl IntoIterator<Item = Descriptor>) -> kiln_layer::Result<u64> {
    let unknown = Descriptor::new("", Digest::sha256_of("a blob that is not made yet"), 0);
    let mut archive = Writer::new(Count(0));
    for member in blob_members(blobs.into_iter().chain([unknown])) {
        archive.start(&tar_entry(&member))?;
        archive.get_mut().0 += member.content.len();
        archive.passed(member.content.len())?;
    }
    Ok(archive.get_mut().0)
}

/// Counts what is written to it.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
    fn the_place_of_the_next_blob_depends_on_those_before_it() {
        let short = Descriptor::of(media_type::OCI_LAYER, b"content");
        let long = Descriptor::new(media_type::OCI_LAYER, sha512(b"content"), 513);
        // Two folders and its header.
        assert_eq!(next_content([]).unwrap(), 3 * 512);
        assert_eq!(next_content([short.clone()]).unwrap(), 5 * 512);
        assert_eq!(next_content([short.clone(), short.clone()]).unwrap(), 5 * 512, "each stands there once");
        // One more folder, and a name that takes three records.
        assert_eq!(next_content([long.clone()]).unwrap(), (2 + 3 + 2 + 2) * 512);

        let next = Descriptor::of(media_type::OCI_LAYER, b"next");
        let of = |blobs: Vec<Descriptor>| members(Vec::new(), blobs, None).unwrap();
        let (few, many) = (of(vec![short.clone(), next.clone()]), of(vec![short, next, long]));
        assert_eq!(few[..4], many[..4], "later blobs change nothing before them");
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
