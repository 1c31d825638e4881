//! What a build gives to its exporters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_frontend::{Refs, Solution, SubjectKind};
use kiln_oci::{Digest, Image, Platform, platform};
use serde::{Deserialize, Serialize};

use crate::error::ExportError;
use crate::image::attest::INLINE_ONLY_KEY;
use crate::provenance::ProvenanceOptions;

/// A frontend's image configuration, per platform with `/<id>` behind it.
pub const IMAGE_CONFIG_KEY: &str = "containerimage.config";
/// The configuration of the image it was made from.
pub const BASE_CONFIG_KEY: &str = "containerimage.base.config";
/// The platforms of a result, as [`Platforms`] in JSON.
pub const PLATFORMS_KEY: &str = "refs.platforms";
/// The name which a frontend gives to the image.
pub const IMAGE_NAME_KEY: &str = "image.name";

/// The result of a build: one reference, or one a platform, with what the frontend says about them. A reference
/// that is `None` is empty, with no file in it.
#[derive(Clone, Debug)]
pub struct Source<R> {
    /// The reference of a result without platforms.
    pub reference: Option<R>,
    /// References by platform id; not empty for a result with platforms.
    pub refs: BTreeMap<String, Option<R>>,
    /// Facts by key.
    pub metadata: BTreeMap<String, Bytes>,
    /// Attestations by platform id.
    pub attestations: BTreeMap<String, Vec<Attestation<R>>>,
}

impl<R> Default for Source<R> {
    fn default() -> Self {
        Self {
            reference: None,
            refs: BTreeMap::new(),
            metadata: BTreeMap::new(),
            attestations: BTreeMap::new(),
        }
    }
}

/// A statement about a result.
#[derive(Clone, Debug)]
pub struct Attestation<R> {
    /// One statement, or a folder of them.
    pub kind: AttestationKind,
    /// Why it was made and how it is to be treated.
    pub metadata: BTreeMap<String, Bytes>,
    /// Its bytes.
    pub content: AttestationContent<R>,
    /// Its file, or the folder, within the reference; also its name in a folder of files.
    pub path: String,
    /// What kind of predicate it is.
    pub predicate_type: String,
    /// What it is about; empty: the result itself.
    pub subjects: Vec<Subject>,
}

/// Where an attestation's bytes are.
#[derive(Clone, Debug)]
pub enum AttestationContent<R> {
    /// In a file of a reference.
    File(R),
    /// Made when an exporter asks for them. Only the daemon itself makes such ones.
    Late(Arc<dyn LateContent>),
    /// Nowhere: a frontend's mistake.
    Missing,
}

/// The bytes of an attestation which tells of what exporters do before they ask for it.
#[async_trait]
pub trait LateContent: fmt::Debug + Send + Sync {
    /// The predicate.
    async fn bytes(&self) -> Result<Bytes, ExportError>;
}

/// Whether an attestation is one or many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttestationKind {
    /// The file is a predicate.
    InToto,
    /// The folder holds whole statements.
    Bundle,
}

/// What an attestation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The result itself, whatever its digest will be.
    pub is_result: bool,
    /// A name; empty for none.
    pub name: String,
    /// Digests of something else.
    pub digests: Vec<Digest>,
}

/// The platforms of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platforms {
    /// In the order of the image's index.
    #[serde(rename = "Platforms")]
    pub platforms: Vec<PlatformRef>,
}

/// A platform with the key under which its parts are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformRef {
    /// The key.
    #[serde(rename = "ID")]
    pub id: String,
    /// The platform.
    #[serde(rename = "Platform")]
    pub platform: Platform,
}

/// What a frontend answered, as exporters see it.
impl<R> From<Solution<R>> for Source<R> {
    fn from(solution: Solution<R>) -> Self {
        let (reference, refs) = match solution.refs {
            Refs::Single(reference) => (reference, BTreeMap::new()),
            Refs::Map(refs) => (None, refs),
        };
        let mut attestations: BTreeMap<String, Vec<Attestation<R>>> = BTreeMap::new();
        for (platform, list) in solution.attestations {
            attestations.insert(platform, list.into_iter().map(Attestation::from).collect());
        }
        Self { reference, refs, metadata: solution.metadata, attestations }
    }
}

impl<R> From<kiln_frontend::Attestation<R>> for Attestation<R> {
    fn from(attestation: kiln_frontend::Attestation<R>) -> Self {
        let subject = |subject: kiln_frontend::Subject| Subject {
            is_result: subject.kind == SubjectKind::Itself,
            name: subject.name,
            digests: subject.digests.iter().filter_map(|digest| Digest::parse(digest).ok()).collect(),
        };
        Self {
            kind: match attestation.kind {
                kiln_frontend::AttestationKind::InToto => AttestationKind::InToto,
                kiln_frontend::AttestationKind::Bundle => AttestationKind::Bundle,
            },
            metadata: attestation.metadata,
            content: match attestation.reference {
                Some(reference) => AttestationContent::File(reference),
                None => AttestationContent::Missing,
            },
            path: attestation.path,
            predicate_type: attestation.predicate_type,
            subjects: attestation.subjects.into_iter().map(subject).collect(),
        }
    }
}

impl<R> Source<R> {
    /// Attaches what the daemon itself states about how a platform's result was made.
    pub fn add_provenance(
        &mut self,
        platform: &str,
        options: &ProvenanceOptions,
        content: Arc<dyn LateContent>,
    ) {
        let metadata = [
            ("reason".to_owned(), Bytes::from_static(b"provenance")),
            (INLINE_ONLY_KEY.to_owned(), options.inline_only.to_string().into()),
        ];
        self.attestations.entry(platform.to_owned()).or_default().push(Attestation {
            kind: AttestationKind::InToto,
            metadata: metadata.into(),
            content: AttestationContent::Late(content),
            path: options.filename.clone(),
            predicate_type: options.version.predicate_type().to_owned(),
            subjects: Vec::new(),
        });
    }

    /// Whether it has one reference a platform.
    pub fn is_map(&self) -> bool {
        !self.refs.is_empty()
    }

    /// A fact as text.
    pub fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.metadata.get(key)?).ok()
    }

    /// A fact of a platform: its own, else the one for all.
    pub fn platform_fact(&self, key: &str, platform: Option<&PlatformRef>) -> Option<&Bytes> {
        platform
            .and_then(|platform| self.metadata.get(&format!("{key}/{}", platform.id)))
            .or_else(|| self.metadata.get(key))
    }

    /// The reference of a platform; the only one there is serves any.
    pub fn find(&self, id: &str) -> Result<Option<&R>, ExportError> {
        if !self.is_map() {
            return Ok(self.reference.as_ref());
        }
        match (self.refs.get(id), self.refs.len()) {
            (Some(found), _) => Ok(found.as_ref()),
            (None, 1) => Ok(self.refs.values().next().expect("there is one").as_ref()),
            (None, _) => Err(ExportError::Result(format!("failed to find ref for ID {id}"))),
        }
    }

    /// All references that are not empty, each once for each place where it stands.
    pub fn references(&self) -> impl Iterator<Item = &R> {
        self.reference.iter().chain(self.refs.values().flatten())
    }

    /// The platforms: what the frontend says, else what the image configuration is for, else this host's.
    pub fn platforms(&self) -> Result<Platforms, ExportError> {
        let fail = |text: String| Err(ExportError::Result(text));
        if let Some(json) = self.metadata.get(PLATFORMS_KEY) {
            let mut platforms = match serde_json::from_slice::<Option<Platforms>>(json) {
                Ok(platforms) => platforms.unwrap_or_default(),
                Err(error) => {
                    return fail(format!(
                        "failed to parse platforms passed to provenance processor: {error}"
                    ));
                }
            };
            if platforms.platforms.is_empty() {
                return fail("invalid empty platforms index for exporter".to_owned());
            }
            for entry in &mut platforms.platforms {
                if entry.id.is_empty() {
                    return fail("invalid empty platform key for exporter".to_owned());
                }
                if entry.platform.os.is_empty() || entry.platform.architecture.is_empty() {
                    return fail(format!("invalid platform value {} for exporter", entry.platform));
                }
                entry.platform = entry.platform.normalized();
            }
            return Ok(platforms);
        }
        let platform = match self.metadata.get(IMAGE_CONFIG_KEY) {
            Some(config) => {
                let image = serde_json::from_slice::<Option<Image>>(config)
                    .map_err(|error| ExportError::Config(format!("malformed: {error}")))?
                    .ok_or(ExportError::NullConfig)?;
                if image.os.is_empty() != image.architecture.is_empty() {
                    return fail(
                        "invalid image config: os and architecture must be specified together".to_owned(),
                    );
                }
                if image.os.is_empty() { platform::default_for_host() } else { image.platform().normalized() }
            }
            None => platform::default_for_host(),
        };
        Ok(Platforms { platforms: vec![PlatformRef { id: platform.to_string(), platform }] })
    }
}
