//! Reading the attestations of a result.

use bytes::Bytes;
use kiln_layer::union::Union;
use kiln_store::Ref;
use std::io::Read;
use std::path::Path;

use super::{ExportBuild, Exporters, store_failed};
use crate::error::ExportError;
use crate::image::attest::{
    ATTESTATION_BYTES_MAX, SBOM_CORE_KEY, bundled_subjects, check_not_provenance, parse_bundled,
};
use crate::source::{Attestation, AttestationContent, AttestationKind, Subject};

/// An attestation, read.
pub(super) struct ReadAttestation {
    pub(super) predicate: Bytes,
    pub(super) predicate_type: String,
    pub(super) subjects: Vec<Subject>,
    /// Its path; the last part is its name in a folder of files.
    pub(super) path: String,
    /// The main list of software.
    pub(super) is_core: bool,
}

/// Reads all, those in bundles one by one; the main list of software comes first.
pub(super) async fn read(
    exporters: &Exporters,
    build: &ExportBuild,
    all: &[Attestation<Ref>],
) -> Result<Vec<ReadAttestation>, ExportError> {
    let invalid = |text: &str| Err(ExportError::Attestation(text.to_owned()));
    let mut found = Vec::new();
    for one in all {
        if one.kind == AttestationKind::InToto && one.path.is_empty() {
            return invalid("attestation does not have set path");
        }
        match (&one.content, one.kind) {
            (AttestationContent::Missing, _) => {
                return invalid("attestation does not have available content");
            }
            (AttestationContent::Late(_), AttestationKind::Bundle) => {
                return invalid("attestation bundle cannot have callback");
            }
            (AttestationContent::Late(content), AttestationKind::InToto) => {
                found.push(whole(one, content.bytes().await?, &one.path));
            }
            (AttestationContent::File(reference), kind) => {
                if kind == AttestationKind::InToto {
                    check_not_provenance(&one.predicate_type, false)?;
                }
                let store = &exporters.store;
                let failed = || store_failed("cannot read in-toto attestation");
                exporters.unpack(reference, build).await.map_err(failed())?;
                let union = store.union(reference).map_err(failed())?;
                let one = one.clone();
                let read = move || read_files(&union, &one);
                found.extend(store.pool().run(read).await.map_err(failed())??);
            }
        }
    }
    found.sort_by_key(|one| !one.is_core);
    Ok(found)
}

fn whole(one: &Attestation<Ref>, predicate: Bytes, path: &str) -> ReadAttestation {
    ReadAttestation {
        predicate,
        predicate_type: one.predicate_type.clone(),
        subjects: one.subjects.clone(),
        path: path.to_owned(),
        is_core: is_core(one, path),
    }
}

fn is_core(one: &Attestation<Ref>, path: &str) -> bool {
    let name = one.metadata.get(SBOM_CORE_KEY).and_then(|name| std::str::from_utf8(name).ok());
    let file = path.rsplit('/').next().unwrap_or_default();
    name.is_some_and(|name| file.split('.').next() == Some(name))
}

fn read_files(union: &Union, one: &Attestation<Ref>) -> Result<Vec<ReadAttestation>, ExportError> {
    let failed = |error: kiln_layer::Error| ExportError::failed("cannot read in-toto attestation", error);
    if one.kind == AttestationKind::InToto {
        let predicate = read_file(union, Path::new(&one.path))?;
        return Ok(vec![whole(one, predicate, &one.path)]);
    }
    let folder = union.resolve(&one.path, true).map_err(failed)?.path;
    let mut found = Vec::new();
    for node in union.read_dir(&folder).map_err(failed)? {
        let bytes = read_file(union, &node.path)?;
        let statement = parse_bundled(&bytes, &one.predicate_type)?;
        let path = node.path.to_string_lossy().into_owned();
        found.push(ReadAttestation {
            subjects: bundled_subjects(&statement),
            predicate: statement.predicate.map(|raw| Bytes::from(raw.get().to_owned())).unwrap_or_default(),
            predicate_type: statement.predicate_type,
            is_core: is_core(one, &path),
            path,
        });
    }
    Ok(found)
}

/// A regular file, its links followed within the result, if it is not absurdly long.
fn read_file(union: &Union, path: &Path) -> Result<Bytes, ExportError> {
    let name = path.display();
    let failed = |error: kiln_layer::Error| ExportError::failed("cannot read in-toto attestation", error);
    let node = union.resolve(path, true).map_err(failed)?.node;
    let Some(node) = node.filter(|node| node.meta.is_file()) else {
        return Err(ExportError::Attestation(format!("{name} is not a regular file")));
    };
    let file = node.open().map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(ATTESTATION_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| ExportError::failed("cannot read in-toto attestation", error))?;
    if bytes.len() as u64 > ATTESTATION_BYTES_MAX {
        return Err(ExportError::Attestation(format!("{name} exceeds {ATTESTATION_BYTES_MAX} bytes")));
    }
    Ok(bytes.into())
}
