//! Manifests and indexes as documents with their descriptors.

use std::collections::BTreeMap;

use bytes::Bytes;
use kiln_oci::{Descriptor, Index, Manifest, Timestamp, annotations, gojson, media_type};

use super::config::{self, BaseImage, default_config};
use super::{Layer, NewMediaTypes, align_history};
use crate::annotations::Annotations;
use crate::error::ExportError;

/// A document to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its type, digest and length, and what else its descriptor says.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The documents of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// The manifest.
    pub manifest: Document,
    /// The configuration.
    pub config: Document,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltIndex {
    /// The index.
    pub index: Document,
}

/// Describes an image of these layers.
pub fn build_image(
    config: Option<&[u8]>,
    layers: &[Layer],
    annotations: &Annotations,
    cache: Option<&[u8]>,
    epoch: Option<Timestamp>,
    base: Option<&BaseImage>,
    types: NewMediaTypes,
) -> Result<BuiltImage, ExportError> {
    let default;
    let config = match config.filter(|config| !config.is_empty()) {
        Some(config) => config,
        None => {
            default = default_config();
            &default
        }
    };
    let history = align_history(config::history(config)?, layers);
    let config = Bytes::from(config::finish_config(config, layers, history, cache, epoch, base)?);
    let (manifest_type, config_type) = if types.oci {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    } else {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    };
    let config = Document { descriptor: Descriptor::of(config_type, &config), bytes: config };
    let layers = layers.iter().map(|layer| public_descriptor(&layer.descriptor, types.oci)).collect();
    let mut manifest = Manifest::new(manifest_type, config.descriptor.clone(), layers);
    manifest.annotations = annotations.manifest.clone();
    let mut manifest = document(manifest_type, &manifest, "manifest")?;
    manifest.descriptor.annotations = annotations.manifest_descriptor.clone();
    Ok(BuiltImage { manifest, config })
}

/// Describes an index of these manifests.
pub fn build_index(
    manifests: Vec<Descriptor>,
    annotations: &Annotations,
    types: NewMediaTypes,
) -> Result<BuiltIndex, ExportError> {
    let index_type = if types.oci { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
    let mut index = Index::new(index_type, manifests);
    index.annotations = annotations.index.clone();
    let mut index = document(index_type, &index, "index")?;
    index.descriptor.annotations = annotations.index_descriptor.clone();
    Ok(BuiltIndex { index })
}

pub(super) fn document<T: serde::Serialize>(
    media_type: &str,
    value: &T,
    what: &'static str,
) -> Result<Document, ExportError> {
    let bytes = gojson::to_vec_indented(value).map_err(|source| ExportError::Json { what, source })?;
    Ok(Document { descriptor: Descriptor::of(media_type, &bytes), bytes: bytes.into() })
}

/// A layer's descriptor as it appears in a manifest: of the right family of types, and without the facts that
/// are only for builders.
pub(super) fn public_descriptor(descriptor: &Descriptor, oci: bool) -> Descriptor {
    let mut public = descriptor.clone();
    let converted =
        if oci { media_type::to_oci(&public.media_type) } else { media_type::to_docker(&public.media_type) };
    public.media_type = converted.to_owned();
    public.annotations = if oci { public_annotations(&descriptor.annotations) } else { BTreeMap::new() };
    public
}

fn public_annotations(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.iter()
        .filter(|(key, _)| {
            !matches!(key.as_str(), annotations::UNCOMPRESSED | annotations::BUILDKIT_CREATED_AT)
                && !key.starts_with(annotations::DISTRIBUTION_SOURCE_PREFIX)
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use kiln_oci::{Digest, Platform};

    use super::*;

    const OCI: NewMediaTypes = NewMediaTypes { oci: true, artifact: true };
    const DOCKER: NewMediaTypes = NewMediaTypes { oci: false, artifact: false };

    fn layer() -> Layer {
        let descriptor = Descriptor::of(media_type::OCI_LAYER_GZIP, b"x")
            .with_annotation(annotations::UNCOMPRESSED, "sha256:y")
            .with_annotation("containerd.io/distribution.source.localhost", "a")
            .with_annotation("keep", "me");
        Layer { descriptor, diff_id: Digest::sha256_of("y"), created: None, description: String::new() }
    }

    fn build(types: NewMediaTypes) -> (BuiltImage, Manifest) {
        let annotations = Annotations {
            manifest: [("m".to_owned(), "1".to_owned())].into(),
            manifest_descriptor: [("d".to_owned(), "2".to_owned())].into(),
            ..Annotations::default()
        };
        let image = build_image(None, &[layer()], &annotations, None, None, None, types).unwrap();
        let manifest = serde_json::from_slice(&image.manifest.bytes).unwrap();
        (image, manifest)
    }

    #[test]
    fn describes_an_image() {
        let (image, manifest) = build(OCI);
        assert_eq!(image.manifest.descriptor.digest, Digest::sha256_of(&image.manifest.bytes));
        assert_eq!(image.manifest.descriptor.annotation("d"), Some("2"));
        assert_eq!(manifest.annotations["m"], "1");
        assert_eq!(manifest.config, image.config.descriptor);
        assert_eq!(manifest.layers[0].annotations, [("keep".to_owned(), "me".to_owned())].into());
        assert!(image.manifest.bytes.starts_with(b"{\n  \"schemaVersion\": 2,\n  \"mediaType\": "));
    }

    #[test]
    fn in_docker_s_types() {
        let (image, manifest) = build(DOCKER);
        assert_eq!(image.manifest.descriptor.media_type, media_type::DOCKER_MANIFEST);
        assert_eq!(manifest.config.media_type, media_type::DOCKER_CONFIG);
        assert_eq!(manifest.layers[0].media_type, media_type::DOCKER_LAYER_GZIP);
        assert!(manifest.layers[0].annotations.is_empty());
        let entry = image.manifest.descriptor.with_platform(Platform::linux("arm64"));
        let index = build_index(vec![entry], &Annotations::default(), DOCKER).unwrap().index;
        assert_eq!(index.descriptor.media_type, media_type::DOCKER_MANIFEST_LIST);
    }
}
