//! Looking at a source without fetching it, shown as a step of the build.

use std::sync::Arc;

use kiln_frontend::{Error, GitMeta, HttpMeta, ImageMeta, MetaRequest, SourceMeta};
use kiln_oci::Timestamp;
use kiln_proto::pb;
use kiln_solver::{Job, Progress};
use kiln_worker::{BuildContext, VertexOp, Worker};

use super::of_worker;
use crate::step;

/// Resolves a source, as the step that the request names.
pub(super) async fn resolve(
    worker: &Worker,
    job: &Job<VertexOp>,
    context: &Arc<BuildContext>,
    source: pb::SourceOp,
    request: MetaRequest,
) -> Result<SourceMeta, Error> {
    let name = if request.log_name.is_empty() {
        format!("resolve source metadata for {}", source.identifier)
    } else {
        request.log_name.clone()
    };
    let source = kiln_llb::SourceOp::from(source);
    step::run(
        job,
        &name,
        |step| async move { look_up(worker, context, &source, request, &step.progress()).await },
    )
    .await
}

/// The same without a step to show.
pub async fn look_up(
    worker: &Worker,
    context: &Arc<BuildContext>,
    source: &kiln_llb::SourceOp,
    request: MetaRequest,
    progress: &Progress,
) -> Result<SourceMeta, Error> {
    let asked = kiln_worker::MetaRequest {
        platform: request.platform,
        resolve_mode: request.resolve_mode,
        no_config: request.no_config,
        git_objects: request.git_objects,
    };
    let found = worker.resolve_source_meta(source, &asked, context, progress).await.map_err(of_worker)?;
    Ok(SourceMeta {
        source: found.op.to_pb(),
        image: found.image.map(|image| ImageMeta {
            digest: image.digest.to_string(),
            config: image.config,
            attestation_chain: None,
        }),
        git: found.git.map(|git| GitMeta {
            checksum: git.checksum,
            reference: git.reference,
            commit_checksum: git.commit_checksum,
            commit_object: git.commit_object,
            tag_object: git.tag_object,
        }),
        http: found.http.map(|http| HttpMeta {
            checksum: http.digest.to_string(),
            filename: http.filename,
            last_modified: http.last_modified.and_then(Timestamp::from_unix),
            checksum_response: None,
        }),
    })
}
