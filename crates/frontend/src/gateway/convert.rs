//! Messages of the service to values and back.

use crate::{
    Attestation, AttestationKind, CacheImport, ChecksumAlgorithm, ChecksumRequest, Error, FileRange,
    MetaRequest, SolveRequest, SourceMeta, Subject, SubjectKind, Warning, WorkerInfo,
};
use kiln_oci::Platform;
use kiln_proto::frontend as api;
use kiln_proto::prost_types::Timestamp;
use kiln_proto::{pb, types};

pub(crate) fn platform_of(platform: &pb::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
    }
}

/// A platform as a message.
pub fn platform_to_message(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

pub(super) fn worker(worker: &WorkerInfo) -> types::WorkerRecord {
    types::WorkerRecord {
        id: worker.id.clone(),
        labels: worker.labels.clone(),
        platforms: worker.platforms.iter().map(platform_to_message).collect(),
        ..Default::default()
    }
}

pub(super) fn solve(request: api::SolveRequest) -> SolveRequest {
    let import = |entry: api::CacheOptionsEntry| CacheImport { kind: entry.r#type, attrs: entry.attrs };
    SolveRequest {
        definition: request.definition,
        frontend: request.frontend,
        frontend_opts: request.frontend_opt,
        frontend_inputs: request.frontend_inputs,
        cache_imports: request.cache_imports.into_iter().map(import).collect(),
        source_policies: request.source_policies,
        evaluate: request.evaluate,
    }
}

pub(super) fn file_range(range: Option<api::FileRange>) -> Result<Option<FileRange>, Error> {
    let Some(range) = range else { return Ok(None) };
    let number = |value: i64| u64::try_from(value).map_err(|_| Error::invalid("negative file range"));
    Ok(Some(FileRange { offset: number(range.offset)?, length: number(range.length)? }))
}

pub(super) fn warning(request: api::WarnRequest) -> Warning {
    Warning {
        vertex: request.digest,
        level: request.level,
        short: request.short,
        detail: request.detail,
        url: request.url,
        source: request.info,
        ranges: request.ranges,
    }
}

/// The source and what is to be found out about it.
pub fn meta_of_message(request: api::ResolveSourceMetaRequest) -> Result<(pb::SourceOp, MetaRequest), Error> {
    let source = request.source.ok_or_else(|| Error::invalid("source is required"))?;
    let image = request.image.unwrap_or_default();
    let checksum = request.http.and_then(|http| http.checksum_request).map(checksum).transpose()?;
    let meta = MetaRequest {
        platform: request.platform.as_ref().map(platform_of),
        log_name: request.log_name,
        resolve_mode: request.resolve_mode,
        no_config: image.no_config,
        attestation_chain: image.attestation_chain,
        resolve_attestations: image.resolve_attestations,
        oci_store: None,
        git_objects: request.git.is_some_and(|git| git.return_object),
        checksum,
        source_policies: request.source_policies,
    };
    Ok((source, meta))
}

fn checksum(request: api::ChecksumRequest) -> Result<ChecksumRequest, Error> {
    use api::checksum_request::ChecksumAlgo;
    let algorithm = match request.algo() {
        ChecksumAlgo::Sha256 => ChecksumAlgorithm::Sha256,
        ChecksumAlgo::Sha384 => ChecksumAlgorithm::Sha384,
        ChecksumAlgo::Sha512 => ChecksumAlgorithm::Sha512,
    };
    if algorithm == ChecksumAlgorithm::Sha256 && request.algo != ChecksumAlgo::Sha256 as i32 {
        return Err(Error::invalid(format!("unknown checksum algorithm {}", request.algo)));
    }
    Ok(ChecksumRequest { algorithm, suffix: request.suffix })
}

/// What was found out, as a message.
pub fn meta_to_message(meta: SourceMeta) -> api::ResolveSourceMetaResponse {
    let image = meta.image.map(|image| api::ResolveSourceImageResponse {
        digest: image.digest,
        config: image.config,
        attestation_chain: image.attestation_chain,
    });
    let git = meta.git.map(|git| api::ResolveSourceGitResponse {
        checksum: git.checksum,
        r#ref: git.reference,
        commit_checksum: git.commit_checksum,
        commit_object: git.commit_object,
        tag_object: git.tag_object,
    });
    let http = meta.http.map(|http| api::ResolveSourceHttpResponse {
        checksum: http.checksum,
        filename: http.filename,
        last_modified: http.last_modified.map(|time| Timestamp { seconds: time.unix_seconds(), nanos: 0 }),
        checksum_response: http
            .checksum_response
            .map(|(digest, suffix)| api::ChecksumResponse { digest, suffix }),
    });
    api::ResolveSourceMetaResponse { source: Some(meta.source), image, git, http }
}

/// An attestation without its result.
pub(super) fn attestation<R>(from: &Attestation<R>) -> api::Attestation {
    let subject = |subject: &Subject| api::InTotoSubject {
        kind: match subject.kind {
            SubjectKind::Itself => api::InTotoSubjectKind::Self_,
            SubjectKind::Raw => api::InTotoSubjectKind::Raw,
        } as i32,
        digest: subject.digests.clone(),
        name: subject.name.clone(),
    };
    api::Attestation {
        kind: match from.kind {
            AttestationKind::InToto => api::AttestationKind::InToto,
            AttestationKind::Bundle => api::AttestationKind::Bundle,
        } as i32,
        metadata: from.metadata.clone(),
        r#ref: None,
        path: from.path.clone(),
        in_toto_predicate_type: from.predicate_type.clone(),
        in_toto_subjects: from.subjects.iter().map(subject).collect(),
    }
}

/// An attestation whose result has been looked up.
pub(super) fn attestation_of<R>(
    from: api::Attestation,
    reference: Option<R>,
) -> Result<Attestation<R>, Error> {
    let kind = match api::AttestationKind::try_from(from.kind) {
        Ok(api::AttestationKind::InToto) => AttestationKind::InToto,
        Ok(api::AttestationKind::Bundle) => AttestationKind::Bundle,
        Err(_) => return Err(Error::invalid(format!("unknown attestation kind {}", from.kind))),
    };
    let subject = |subject: api::InTotoSubject| {
        let kind = match api::InTotoSubjectKind::try_from(subject.kind) {
            Ok(api::InTotoSubjectKind::Self_) => SubjectKind::Itself,
            Ok(api::InTotoSubjectKind::Raw) => SubjectKind::Raw,
            Err(_) => {
                return Err(Error::invalid(format!("unknown attestation subject type {}", subject.kind)));
            }
        };
        Ok(Subject { kind, name: subject.name, digests: subject.digest })
    };
    Ok(Attestation {
        kind,
        metadata: from.metadata,
        reference,
        path: from.path,
        predicate_type: from.in_toto_predicate_type,
        subjects: from.in_toto_subjects.into_iter().map(subject).collect::<Result<_, _>>()?,
    })
}
