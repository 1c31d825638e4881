//! Attestations: in-toto statements, and the manifest that attaches them to an image.

use std::collections::BTreeMap;

use bytes::Bytes;
use kiln_oci::{Descriptor, Digest, Image, Manifest, Platform, RootFs, annotations, gojson, media_type};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::NewMediaTypes;
use super::manifest::{Document, document, public_descriptor};
use crate::error::ExportError;
use crate::source::{Attestation, Subject};

/// The type of the statements that are written.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The artifact type of the manifest which attaches attestations.
const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Where the types of provenance start: only the daemon makes those.
const PROVENANCE_PREFIX: &str = "https://slsa.dev/provenance/";
/// The longest attestation that is read, in bytes.
pub const ATTESTATION_BYTES_MAX: u64 = 40 << 20;
/// Marks attestations which are only attached where all others are.
pub const INLINE_ONLY_KEY: &str = "inline-only";
/// Names the file of the main list of software among several.
pub const SBOM_CORE_KEY: &str = "sbom-core";

/// An in-toto statement.
#[derive(Debug, Serialize, Deserialize)]
pub struct Statement {
    /// Its type.
    #[serde(rename = "_type")]
    pub kind: String,
    /// What the predicate is.
    #[serde(rename = "predicateType", default)]
    pub predicate_type: String,
    /// What it is about. Writers in Go say `null` for nothing.
    #[serde(default, deserialize_with = "list_or_null")]
    pub subject: Vec<StatementSubject>,
    /// What is stated.
    #[serde(default)]
    pub predicate: Option<Box<RawValue>>,
}

fn list_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<StatementSubject>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A thing that a statement is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementSubject {
    /// Its name.
    pub name: String,
    /// Its digests by algorithm.
    pub digest: BTreeMap<String, String>,
}

impl StatementSubject {
    /// A thing with this digest.
    pub fn new(name: impl Into<String>, digest: &Digest) -> Self {
        Self { name: name.into(), digest: digest_map(std::slice::from_ref(digest)) }
    }
}

/// Digests as statements have them.
pub fn digest_map(digests: &[Digest]) -> BTreeMap<String, String> {
    digests.iter().map(|digest| (digest.algorithm().as_str().to_owned(), digest.hex().to_owned())).collect()
}

/// Leaves out what is only for attaching, unless that is asked for.
pub fn without_inline_only<R: Clone>(all: &[Attestation<R>]) -> Vec<Attestation<R>> {
    all.iter()
        .filter(|one| one.metadata.get(INLINE_ONLY_KEY).is_none_or(|value| value != "true"))
        .cloned()
        .collect()
}

/// Refuses predicates that a frontend must not make up.
pub fn check_not_provenance(predicate_type: &str, bundled: bool) -> Result<(), ExportError> {
    if !predicate_type.starts_with(PROVENANCE_PREFIX) {
        return Ok(());
    }
    let verb = if bundled { "bundle" } else { "set" };
    Err(ExportError::Attestation(format!("frontend may not {verb} provenance attestations")))
}

/// Reads a whole statement out of a bundle.
pub fn parse_bundled(bytes: &[u8], required_type: &str) -> Result<Statement, ExportError> {
    let statement: Statement = serde_json::from_slice(bytes)
        .map_err(|error| ExportError::Attestation(format!("cannot decode in-toto statement: {error}")))?;
    if !required_type.is_empty() && statement.predicate_type != required_type {
        return Err(ExportError::Attestation(format!(
            "bundle entry {} does not match required predicate type {required_type}",
            statement.predicate_type
        )));
    }
    check_not_provenance(&statement.predicate_type, true)?;
    Ok(statement)
}

/// What an attestation out of a bundle is about.
pub fn bundled_subjects(statement: &Statement) -> Vec<Subject> {
    statement
        .subject
        .iter()
        .map(|subject| Subject {
            is_result: false,
            name: subject.name.clone(),
            digests: subject
                .digest
                .iter()
                .filter_map(|(algorithm, hex)| Digest::parse(&format!("{algorithm}:{hex}")).ok())
                .collect(),
        })
        .collect()
}

/// Makes a statement of a predicate. `results` is what the result itself is called.
pub fn statement(
    predicate: &[u8],
    predicate_type: &str,
    subjects: &[Subject],
    results: &[StatementSubject],
) -> Result<Statement, ExportError> {
    let default = [Subject { is_result: true, name: String::new(), digests: Vec::new() }];
    let subjects = if subjects.is_empty() { &default[..] } else { subjects };
    let mut named = Vec::new();
    for subject in subjects {
        if subject.is_result {
            for result in results {
                named.push(result.clone());
                if !subject.name.is_empty() {
                    named
                        .push(StatementSubject { name: subject.name.clone(), digest: result.digest.clone() });
                }
            }
        } else {
            let name = if subject.name.is_empty() { "_" } else { &subject.name };
            named.push(StatementSubject { name: name.to_owned(), digest: digest_map(&subject.digests) });
        }
    }
    let predicate = if predicate.is_empty() {
        None
    } else {
        let text = std::str::from_utf8(predicate)
            .map_err(|error| ExportError::Attestation(format!("attestation is no text: {error}")))?;
        let parsed = RawValue::from_string(text.to_owned())
            .map_err(|source| ExportError::Json { what: "attestation", source })?;
        Some(parsed)
    };
    Ok(Statement {
        kind: STATEMENT_TYPE.to_owned(),
        predicate_type: predicate_type.to_owned(),
        subject: named,
        predicate,
    })
}

/// The documents which attach statements to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltAttestations {
    /// The manifest, with the descriptor that goes into the index.
    pub manifest: Document,
    /// Its configuration.
    pub config: Document,
    /// The statements.
    pub statements: Vec<Document>,
}

/// Describes the attachment of `statements` to the image `target`.
pub fn build_attestations(
    target: &Descriptor,
    statements: &[Statement],
    types: NewMediaTypes,
) -> Result<BuiltAttestations, ExportError> {
    let marshal = |source| ExportError::Json { what: "attestation", source };
    let statements = statements
        .iter()
        .map(|statement| {
            let bytes = gojson::to_vec_compacted(statement).map_err(marshal)?;
            let mut descriptor = Descriptor::of(media_type::IN_TOTO, &bytes);
            let uncompressed = descriptor.digest.to_string();
            descriptor = descriptor
                .with_annotation(annotations::UNCOMPRESSED, uncompressed)
                .with_annotation(annotations::IN_TOTO_PREDICATE_TYPE, &*statement.predicate_type);
            Ok(Document { descriptor, bytes: bytes.into() })
        })
        .collect::<Result<Vec<_>, ExportError>>()?;

    let unknown = Platform { os: "unknown".into(), architecture: "unknown".into(), ..Platform::default() };
    let (manifest_type, config_type) = if types.oci {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG)
    } else {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG)
    };
    let config = if types.artifact {
        let bytes = Bytes::from_static(b"{}");
        let mut descriptor = Descriptor::of(media_type::OCI_EMPTY, &bytes);
        descriptor.data = Some(bytes.to_vec());
        Document { descriptor, bytes }
    } else {
        let mut image = Image::default();
        image.set_platform(unknown.clone());
        let diff_ids = statements.iter().map(|statement| statement.descriptor.digest.clone()).collect();
        image.rootfs = RootFs { diff_ids, ..RootFs::default() };
        let bytes = Bytes::from(gojson::to_vec(&image).map_err(marshal)?);
        Document { descriptor: Descriptor::of(config_type, &bytes), bytes }
    };

    let layers =
        statements.iter().map(|statement| public_descriptor(&statement.descriptor, types.oci)).collect();
    let mut manifest = Manifest::new(manifest_type, config.descriptor.clone(), layers);
    if types.artifact {
        manifest.artifact_type = Some(ARTIFACT_TYPE.to_owned());
        manifest.subject = Some(Descriptor::new(&*target.media_type, target.digest.clone(), target.size));
    }
    let mut manifest = document(manifest_type, &manifest, "manifest")?;
    manifest.descriptor = manifest
        .descriptor
        .with_annotation(annotations::DOCKER_REFERENCE_TYPE, annotations::ATTESTATION_MANIFEST)
        .with_annotation(annotations::DOCKER_REFERENCE_DIGEST, target.digest.to_string())
        .with_platform(unknown);
    Ok(BuiltAttestations { manifest, config, statements })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Descriptor {
        Descriptor::of(media_type::OCI_MANIFEST, b"image")
    }

    #[test]
    fn attaches_as_artifact_or_image() {
        let result = StatementSubject::new("pkg:docker/a@latest", &target().digest);
        let made = statement(br#"{"b": 1, "a": "<"}"#, "https://example.test/p", &[], &[result]).unwrap();
        let built =
            build_attestations(&target(), &[made], NewMediaTypes { oci: true, artifact: true }).unwrap();
        let text = std::str::from_utf8(&built.statements[0].bytes).unwrap();
        assert_eq!(
            text,
            format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://example.test/p","subject":[{{"name":"pkg:docker/a@latest","digest":{{"sha256":"{}"}}}}],"predicate":{{"b":1,"a":"\u003c"}}}}"#,
                target().digest.hex()
            )
        );
        let manifest: Manifest = serde_json::from_slice(&built.manifest.bytes).unwrap();
        assert_eq!(manifest.subject.unwrap(), target());
        assert_eq!(manifest.artifact_type.as_deref(), Some(ARTIFACT_TYPE));
        assert_eq!(manifest.config.data.as_deref(), Some(&b"{}"[..]));
        assert_eq!(manifest.layers[0].annotations.len(), 1);
        assert!(kiln_oci::is_attestation_manifest(&built.manifest.descriptor));
        assert_eq!(built.manifest.descriptor.platform.as_ref().unwrap().to_string(), "unknown/unknown");

        let made = statement(b"{}", "t", &[], &[]).unwrap();
        let built =
            build_attestations(&target(), &[made], NewMediaTypes { oci: true, artifact: false }).unwrap();
        let image: Image = serde_json::from_slice(&built.config.bytes).unwrap();
        assert_eq!(image.rootfs.diff_ids, [built.statements[0].descriptor.digest.clone()]);
    }

    #[test]
    fn names_subjects() {
        let result = StatementSubject::new("r", &target().digest);
        let own = Subject { is_result: true, name: "also".into(), digests: vec![] };
        let other = Subject { is_result: false, name: String::new(), digests: vec![Digest::sha256_of("o")] };
        let made = statement(b"{}", "t", &[own, other], &[result]).unwrap();
        let names: Vec<_> = made.subject.iter().map(|subject| subject.name.as_str()).collect();
        assert_eq!(names, ["r", "also", "_"]);
        assert!(statement(b"{", "t", &[], &[]).is_err());
    }

    #[test]
    fn reads_bundles() {
        let text = br#"{"_type":"x","predicateType":"p","subject":[{"name":"n","digest":{"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","md5":"0"}}],"predicate":{"a":1}}"#;
        let read = parse_bundled(text, "p").unwrap();
        assert_eq!(bundled_subjects(&read)[0].digests, [Digest::sha256_of("")]);
        assert_eq!(read.predicate.unwrap().get(), r#"{"a":1}"#);
        assert_eq!(
            parse_bundled(text, "q").unwrap_err().to_string(),
            "bundle entry p does not match required predicate type q"
        );
        assert!(parse_bundled(b"{} {}", "").is_err());
        let of_nothing = br#"{"_type":"x","predicateType":"p","subject":null,"predicate":{}}"#;
        assert!(parse_bundled(of_nothing, "p").unwrap().subject.is_empty());
        let forged = br#"{"_type":"x","predicateType":"https://slsa.dev/provenance/v1"}"#;
        assert_eq!(
            parse_bundled(forged, "").unwrap_err().to_string(),
            "frontend may not bundle provenance attestations"
        );
    }
}
