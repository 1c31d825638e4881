//! `oci-layout://PATH[:TAG][@DIGEST]`: a folder that is an OCI image layout.

use std::path::{Path, PathBuf};

use kiln_oci::Digest;

use crate::build::oci_index;
use crate::error::{Error, Result};

/// A folder and which image of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// The folder.
    pub dir: PathBuf,
    /// `:tag@digest`, for the daemon.
    pub suffix: String,
}

/// Reads the text after `oci-layout://`; without a digest, the folder's index tells it.
pub fn resolve(text: &str) -> Result<Layout> {
    let (rest, digest) = match text.rsplit_once('@').map(|(rest, digest)| (rest, Digest::parse(digest))) {
        Some((rest, Ok(digest))) => (rest, Some(digest)),
        _ => (text, None),
    };
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if is_tag(tag) => (dir, Some(tag.to_owned())),
        _ => (rest, None),
    };
    let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
    let dir = Path::new(dir);
    let digest = match digest {
        Some(digest) => digest,
        None => oci_index::find(dir, tag.as_deref().unwrap_or_default())?.ok_or_else(|| {
            Error::user(format!("oci-layout reference {text:?} could not be resolved"))
                .hint("give a tag or digest that the layout's index.json has")
        })?,
    };
    let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
    Ok(Layout { dir: dir.to_owned(), suffix: format!("{tag}@{digest}") })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::sha256_of("x");
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"mediaType":"m","size":1,"digest":"{digest}","annotations":{{"org.opencontainers.image.ref.name":"v1"}}}},
                {{"mediaType":"m","size":1,"digest":"{}"}}]}}"#,
            Digest::sha256_of("y")
        );
        std::fs::write(dir.path().join("index.json"), index).unwrap();
        let base = dir.path().display();
        let found = resolve(&format!("{base}:v1")).unwrap();
        assert_eq!(found, Layout { dir: dir.path().to_owned(), suffix: format!(":v1@{digest}") });
        assert!(resolve(&format!("{base}:v2")).is_err());
        let direct = resolve(&format!("{base}@{digest}")).unwrap();
        assert_eq!(direct.suffix, format!("@{digest}"));
        assert!(resolve("/nonexistent").is_err());
    }
}
