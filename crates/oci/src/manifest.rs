//! Manifests and indexes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::annotations;
use crate::descriptor::{Descriptor, null_default};
use crate::media_type;

/// The only schema version that is left.
const SCHEMA_VERSION: u32 = 2;

/// The manifest of one image: its configuration and its layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default, deserialize_with = "null_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest which this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free facts about it.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// A manifest of this media type.
    pub fn new(media_type: impl Into<String>, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            media_type: Some(media_type.into()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// An index of manifests, one a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    #[serde(default, deserialize_with = "null_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest which this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free facts about it.
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Index {
    /// An index of this media type.
    pub fn new(media_type: impl Into<String>, manifests: Vec<Descriptor>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            media_type: Some(media_type.into()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// Whether an index' entry is an attestation about another entry, and so no image.
pub fn is_attestation_manifest(descriptor: &Descriptor) -> bool {
    descriptor.annotation(annotations::DOCKER_REFERENCE_TYPE) == Some(annotations::ATTESTATION_MANIFEST)
}

/// Why a document is neither manifest nor index.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no JSON, or not of the right shape.
    #[error("malformed manifest")]
    Json(#[from] serde_json::Error),
    /// It has a manifest's fields and an index' fields.
    #[error("invalid ambiguous manifest and manifest list")]
    Ambiguous,
    /// It says one thing and is another.
    #[error("mediaType in manifest does not match manifest contents")]
    Mismatch,
    /// Docker's first schema.
    #[error(
        "support Docker Image manifest version 2, schema 1 has been removed. More information at https://docs.docker.com/go/deprecated-image-specs/"
    )]
    Schema1,
    /// A media type that is neither manifest nor index.
    #[error("unexpected media type {0} for a manifest")]
    Unknown(String),
}

/// Tells what a manifest's bytes are when nobody said; a mix of manifest and index is refused, since two
/// readers could take it for two different images.
pub fn detect_manifest_media_type(bytes: &[u8]) -> Result<String, ManifestError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        media_type: Option<String>,
        config: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let fields: Fields = serde_json::from_slice(bytes)?;
    let is_manifest = fields.config.is_some() || fields.layers.is_some();
    if is_manifest && fields.manifests.is_some() {
        return Err(ManifestError::Ambiguous);
    }
    match fields.media_type {
        Some(named) if media_type::is_index(&named) || media_type::is_manifest(&named) => {
            if media_type::is_manifest(&named) == is_manifest {
                Ok(named)
            } else {
                Err(ManifestError::Mismatch)
            }
        }
        _ if is_manifest => Ok(media_type::DOCKER_MANIFEST.to_owned()),
        _ => Ok(media_type::DOCKER_MANIFEST_LIST.to_owned()),
    }
}

/// A manifest's bytes, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// One image (or another single artifact).
    Manifest(Box<Manifest>),
    /// Several.
    Index(Box<Index>),
}

impl ManifestKind {
    /// Reads bytes which came with this media type.
    pub fn parse(media_type: &str, bytes: &[u8]) -> Result<Self, ManifestError> {
        if media_type == media_type::DOCKER_MANIFEST_SCHEMA1 {
            return Err(ManifestError::Schema1);
        }
        let is_manifest = media_type::is_manifest(media_type);
        if !is_manifest && !media_type::is_index(media_type) {
            return Err(ManifestError::Unknown(media_type.to_owned()));
        }
        // A document that could be read either way is not trusted.
        let detected = detect_manifest_media_type(bytes)?;
        if media_type::is_manifest(&detected) != is_manifest {
            return Err(ManifestError::Mismatch);
        }
        Ok(if is_manifest {
            Self::Manifest(Box::new(serde_json::from_slice(bytes)?))
        } else {
            Self::Index(Box::new(serde_json::from_slice(bytes)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, gojson};

    #[test]
    fn field_order_is_go_s() {
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        let layer = Descriptor::of(media_type::OCI_LAYER_GZIP, b"x")
            .with_annotation("b", "2")
            .with_annotation("a", "1");
        let mut manifest = Manifest::new(media_type::OCI_MANIFEST, config, vec![layer]);
        manifest.annotations.insert("k".into(), "v".into());
        let text = String::from_utf8(gojson::to_vec(&manifest).unwrap()).unwrap();
        let (c, x) = (Digest::sha256_of("{}"), Digest::sha256_of("x"));
        assert_eq!(
            text,
            format!(
                r#"{{"schemaVersion":2,"mediaType":"{}","config":{{"mediaType":"{}","digest":"{c}","size":2}},"layers":[{{"mediaType":"{}","digest":"{x}","size":1,"annotations":{{"a":"1","b":"2"}}}}],"annotations":{{"k":"v"}}}}"#,
                media_type::OCI_MANIFEST,
                media_type::OCI_CONFIG,
                media_type::OCI_LAYER_GZIP,
            )
        );
        assert_eq!(
            ManifestKind::parse(media_type::OCI_MANIFEST, text.as_bytes()).unwrap(),
            ManifestKind::Manifest(Box::new(manifest))
        );
        assert!(matches!(
            ManifestKind::parse(media_type::OCI_INDEX, text.as_bytes()),
            Err(ManifestError::Mismatch)
        ));
    }

    #[test]
    fn tells_kinds_apart() {
        let detect = |text: &str| detect_manifest_media_type(text.as_bytes());
        assert_eq!(detect(r#"{"layers":[]}"#).unwrap(), media_type::DOCKER_MANIFEST);
        assert_eq!(detect(r#"{"manifests":[]}"#).unwrap(), media_type::DOCKER_MANIFEST_LIST);
        assert!(matches!(detect(r#"{"layers":[],"manifests":[]}"#), Err(ManifestError::Ambiguous)));
        let lying = format!(r#"{{"mediaType":"{}","layers":[]}}"#, media_type::OCI_INDEX);
        assert!(matches!(detect(&lying), Err(ManifestError::Mismatch)));
        assert!(matches!(detect("[]"), Err(ManifestError::Json(_))));
    }
}
