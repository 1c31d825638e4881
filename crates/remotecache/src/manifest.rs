//! What wraps a cache in a registry or layout: an index of blobs, or an image manifest whose configuration is
//! the cache's document.

use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Digest, Index, Manifest, detect_manifest_media_type, gojson, media_type};

use crate::error::CacheError;

/// Which wrapping is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestForm {
    /// OCI's types rather than Docker's.
    pub oci: bool,
    /// An image manifest rather than an index.
    pub image_manifest: bool,
}

/// Wraps blobs and document; the descriptor has the type, digest and length of the bytes.
pub fn wrap(
    form: ManifestForm,
    blobs: &[Descriptor],
    config: &Descriptor,
) -> Result<(Descriptor, Vec<u8>), CacheError> {
    let convert = |blob: &Descriptor| {
        let mut blob = blob.clone();
        let media_type = &blob.media_type;
        blob.media_type =
            if form.oci { media_type::to_oci(media_type) } else { media_type::to_docker(media_type) }
                .to_owned();
        blob
    };
    let mut all: Vec<Descriptor> = blobs.iter().map(convert).collect();
    let (kind, bytes) = match form {
        ManifestForm { image_manifest: true, oci: true } => {
            let manifest = Manifest::new(media_type::OCI_MANIFEST, config.clone(), all);
            (media_type::OCI_MANIFEST, gojson::to_vec(&manifest)?)
        }
        ManifestForm { image_manifest: true, oci: false } => {
            return Err(CacheError::Option(
                "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache \
                 format"
                    .to_owned(),
            ));
        }
        ManifestForm { image_manifest: false, oci } => {
            let kind = if oci { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
            all.push(config.clone());
            (kind, gojson::to_vec(&Index::new(kind, all))?)
        }
    };
    Ok((Descriptor::of(kind, &bytes), bytes))
}

/// What a manifest turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unwrapped {
    /// A cache: its document, and the blobs that may be there.
    Cache {
        /// The document.
        config: Box<Descriptor>,
        /// The blobs.
        blobs: BTreeMap<Digest, Descriptor>,
    },
    /// An image, which may have a cache inside.
    Image(Box<Manifest>),
    /// Several images.
    Images(Box<Index>),
}

/// Looks at a manifest's bytes.
pub fn unwrap(bytes: &[u8]) -> Result<Unwrapped, CacheError> {
    let kind = detect_manifest_media_type(bytes).map_err(|error| CacheError::Manifest(error.to_string()))?;
    let by_digest = |all: Vec<Descriptor>| all.into_iter().map(|blob| (blob.digest.clone(), blob)).collect();
    if media_type::is_index(&kind) {
        let index: Index = serde_json::from_slice(bytes)?;
        let is_config = |entry: &Descriptor| entry.media_type == media_type::CACHE_CONFIG;
        // The last one counts, as others have it.
        return Ok(match index.manifests.iter().rfind(|entry| is_config(entry)).cloned() {
            Some(config) => {
                let blobs = index.manifests.into_iter().filter(|entry| !is_config(entry)).collect();
                Unwrapped::Cache { config: Box::new(config), blobs: by_digest(blobs) }
            }
            None => Unwrapped::Images(Box::new(index)),
        });
    }
    let manifest: Manifest = serde_json::from_slice(bytes)?;
    if manifest.config.media_type == media_type::CACHE_CONFIG {
        let blobs = by_digest(manifest.layers);
        return Ok(Unwrapped::Cache { config: Box::new(manifest.config), blobs });
    }
    Ok(Unwrapped::Image(Box::new(manifest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wraps_and_unwraps() {
        let layer = Descriptor::of(media_type::DOCKER_LAYER_GZIP, b"x");
        let config = Descriptor::of(media_type::CACHE_CONFIG, b"{}");
        for (form, kind, layer_kind) in [
            ((true, true), media_type::OCI_MANIFEST, media_type::OCI_LAYER_GZIP),
            ((true, false), media_type::OCI_INDEX, media_type::OCI_LAYER_GZIP),
            ((false, false), media_type::DOCKER_MANIFEST_LIST, media_type::DOCKER_LAYER_GZIP),
        ] {
            let form = ManifestForm { oci: form.0, image_manifest: form.1 };
            let (descriptor, bytes) = wrap(form, std::slice::from_ref(&layer), &config).unwrap();
            assert_eq!(descriptor.media_type, kind);
            let Unwrapped::Cache { config: got, blobs } = unwrap(&bytes).unwrap() else { panic!("no cache") };
            assert_eq!(*got, config);
            assert_eq!(blobs[&layer.digest].media_type, layer_kind);
        }
        assert!(wrap(ManifestForm { oci: false, image_manifest: true }, &[], &config).is_err());
        assert!(unwrap(b"[]").is_err());
        assert!(matches!(unwrap(br#"{"schemaVersion":2,"manifests":[]}"#).unwrap(), Unwrapped::Images(_)));
    }
}
