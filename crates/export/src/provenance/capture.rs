//! What a build used.

use std::collections::BTreeMap;

use kiln_oci::{Digest, Platform, Reference, ReferenceError};
use serde::Serialize;

use super::request::redact_credentials;
use crate::purl::typed_purl;

/// An image that was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageMaterial {
    /// Its name.
    pub reference: String,
    /// For which platform.
    pub platform: Option<Platform>,
    /// The digest it had.
    pub digest: Option<Digest>,
    /// From a layout of the client rather than from a registry.
    pub local: bool,
}

/// A single blob of a repository of images that was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobMaterial {
    /// Its name, with its digest.
    pub reference: String,
    /// The digest.
    pub digest: Digest,
    /// From a layout of the client rather than from a registry.
    pub local: bool,
}

/// A repository that was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitMaterial {
    /// Its address with `#ref` behind it.
    pub url: String,
    /// The commit.
    pub commit: String,
}

/// A file from the web that was used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpMaterial {
    /// Its address.
    pub url: String,
    /// Its digest.
    pub digest: Digest,
}

/// A secret or agent that a step could use; only its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct SecretUse {
    /// Its name.
    pub id: String,
    /// The build could do without.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
}

/// Everything that a result's steps used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    pub(super) images: Vec<ImageMaterial>,
    pub(super) blobs: Vec<BlobMaterial>,
    pub(super) git: Vec<GitMaterial>,
    pub(super) http: Vec<HttpMaterial>,
    pub(super) locals: Vec<String>,
    pub(super) secrets: BTreeMap<String, bool>,
    pub(super) ssh: BTreeMap<String, bool>,
    /// A step could reach the network.
    pub network_access: bool,
    /// Something was used that is not told here.
    pub incomplete: bool,
}

/// A thing that went in, with its digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Material {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uri: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) digest: BTreeMap<String, String>,
}

impl Capture {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an image; the same for the same platform counts once.
    pub fn add_image(&mut self, image: ImageMaterial) {
        let same = |known: &ImageMaterial| {
            known.reference == image.reference
                && known.local == image.local
                && known.platform == image.platform
        };
        if !self.images.iter().any(same) {
            self.images.push(image);
        }
    }

    /// Adds a blob.
    pub fn add_blob(&mut self, blob: BlobMaterial) {
        let same = |known: &BlobMaterial| known.reference == blob.reference && known.local == blob.local;
        if !self.blobs.iter().any(same) {
            self.blobs.push(blob);
        }
    }

    /// Adds a repository. Passwords in its address are left out.
    pub fn add_git(&mut self, url: &str, commit: &str) {
        let url = redact_credentials(url);
        if !self.git.iter().any(|known| known.url == url) {
            self.git.push(GitMaterial { url, commit: commit.to_owned() });
        }
    }

    /// Adds a file from the web. Passwords in its address are left out.
    pub fn add_http(&mut self, url: &str, digest: Digest) {
        let url = redact_credentials(url);
        if !self.http.iter().any(|known| known.url == url) {
            self.http.push(HttpMaterial { url, digest });
        }
    }

    /// Adds a folder of the client.
    pub fn add_local(&mut self, name: &str) {
        if !self.locals.iter().any(|known| known == name) {
            self.locals.push(name.to_owned());
        }
    }

    /// Adds the name of a secret.
    pub fn add_secret(&mut self, id: &str, optional: bool) {
        let known = self.secrets.entry(id.to_owned()).or_insert(optional);
        *known &= optional;
    }

    /// Adds the name of an agent.
    pub fn add_ssh(&mut self, id: &str, optional: bool) {
        let id = if id.is_empty() { "default" } else { id };
        let known = self.ssh.entry(id.to_owned()).or_insert(optional);
        *known &= optional;
    }

    /// Adds all that another one has.
    pub fn merge(&mut self, other: Self) {
        other.images.into_iter().for_each(|image| self.add_image(image));
        other.blobs.into_iter().for_each(|blob| self.add_blob(blob));
        other.git.into_iter().for_each(|git| self.add_git(&git.url, &git.commit));
        other.http.into_iter().for_each(|http| self.add_http(&http.url, http.digest));
        other.locals.iter().for_each(|name| self.add_local(name));
        other.secrets.iter().for_each(|(id, optional)| self.add_secret(id, *optional));
        other.ssh.iter().for_each(|(id, optional)| self.add_ssh(id, *optional));
        self.network_access |= other.network_access;
        self.incomplete |= other.incomplete;
    }

    /// Puts everything into an order that does not depend on how the build ran, and leaves out images by
    /// digest that are there by their tag too.
    pub fn finish(&mut self) -> Result<(), ReferenceError> {
        let tagged = |reference: &Reference| {
            format!("{}:{}", reference.name(), reference.tag().unwrap_or(kiln_oci::DEFAULT_TAG))
        };
        let mut by_tag = Vec::new();
        for image in &self.images {
            let reference = Reference::parse(&image.reference)?;
            if reference.digest().is_none() {
                by_tag.push(tagged(&reference));
            }
        }
        self.images.retain(|image| match Reference::parse(&image.reference) {
            Ok(reference) => reference.digest().is_none() || !by_tag.contains(&tagged(&reference)),
            Err(_) => true,
        });
        self.images.sort();
        self.blobs.sort();
        self.git.sort();
        self.http.sort();
        self.locals.sort();
        Ok(())
    }

    pub(super) fn materials(&self) -> Result<Vec<Material>, ReferenceError> {
        let mut all = Vec::new();
        for image in &self.images {
            let uri = typed_purl(kind(image.local), &image.reference, image.platform.as_ref(), &[])?;
            all.push(Material { uri, digest: image.digest.iter().map(digest_entry).collect() });
        }
        for blob in &self.blobs {
            let uri = typed_purl(kind(blob.local), &blob.reference, None, &[("ref_type", "blob")])?;
            all.push(Material { uri, digest: [digest_entry(&blob.digest)].into() });
        }
        all.extend(
            self.git.iter().map(|git| Material { uri: git.url.clone(), digest: commit_digest(&git.commit) }),
        );
        all.extend(
            self.http
                .iter()
                .map(|http| Material { uri: http.url.clone(), digest: [digest_entry(&http.digest)].into() }),
        );
        Ok(all)
    }

    /// What a context's address turned out to be.
    pub(super) fn find(&self, uri: &str) -> Option<Material> {
        let config_uri = kiln_dockerfile::git_ref::fragment_form(uri, true).unwrap_or_else(|| uri.to_owned());
        let plain = kiln_dockerfile::git_ref::fragment_form(uri, false).unwrap_or_else(|| uri.to_owned());
        let (plain, redacted) = (redact_credentials(&plain), redact_credentials(uri));
        if let Some(git) = self.git.iter().find(|git| git.url == plain) {
            return Some(Material { uri: config_uri, digest: commit_digest(&git.commit) });
        }
        let http = self.http.iter().find(|http| http.url == redacted || http.url == plain)?;
        Some(Material { uri: http.url.clone(), digest: [digest_entry(&http.digest)].into() })
    }

    pub(super) fn uses(names: &BTreeMap<String, bool>) -> Vec<SecretUse> {
        names.iter().map(|(id, optional)| SecretUse { id: id.clone(), optional: *optional }).collect()
    }
}

/// The type of the package URLs of images.
fn kind(local: bool) -> &'static str {
    if local { "oci" } else { "docker" }
}

fn digest_entry(digest: &Digest) -> (String, String) {
    (digest.algorithm().as_str().to_owned(), digest.hex().to_owned())
}

fn commit_digest(commit: &str) -> BTreeMap<String, String> {
    const SHA256_DIGITS: usize = 64;
    let algorithm = if commit.len() == SHA256_DIGITS { "sha256" } else { "sha1" };
    [(algorithm.to_owned(), commit.to_owned())].into()
}
