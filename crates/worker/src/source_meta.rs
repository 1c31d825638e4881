//! What can be said of sources before anything is built: the configuration of an image, the commit of a branch.

use std::sync::Arc;

use bytes::Bytes;
use kiln_llb::SourceOp;
use kiln_oci::{Digest, Platform};
use kiln_session::daemon::SessionGroup;
use kiln_solver::Progress;

use crate::Worker;
use crate::context::BuildContext;
use crate::error::{Error, Result};
use crate::source::{GitMetadata, HttpMetadata, Identifier, ResolveMode, ResolvedImage};

/// What is wanted to be known.
#[derive(Clone, Debug, Default)]
pub struct MetaRequest {
    /// For images: of which platform. `None` is the worker's own.
    pub platform: Option<Platform>,
    /// For images: `default`, `pull` or `local`; empty leaves it to the source.
    pub resolve_mode: String,
    /// For images: the digest is enough.
    pub no_config: bool,
    /// For git: the objects behind the ref as well.
    pub git_objects: bool,
}

/// What is known of a source.
#[derive(Clone, Debug)]
pub struct SourceMeta {
    /// The source as the policy left it.
    pub op: SourceOp,
    pub image: Option<ImageMeta>,
    pub git: Option<GitMetadata>,
    pub http: Option<HttpMetadata>,
}

/// What is known of an image.
#[derive(Clone, Debug)]
pub struct ImageMeta {
    /// Of what the name stands for: an index, or a manifest.
    pub digest: Digest,
    /// Empty if it was not wanted.
    pub config: Bytes,
}

impl Worker {
    /// Finds out about a source, after the build's policy has judged it.
    ///
    /// # Errors
    /// A source that is denied, not there or not to be reached.
    pub async fn resolve_source_meta(
        &self,
        op: &SourceOp,
        request: &MetaRequest,
        build: &Arc<BuildContext>,
        progress: &Progress,
    ) -> Result<SourceMeta> {
        let platform = self.platform_of(request.platform.as_ref());
        let mut op = op.clone();
        if let Some(policy) = build.policy() {
            policy.evaluate(&mut op, &platform).await.map_err(Error::Policy)?;
        }
        let sessions: &SessionGroup = build.sessions();
        let mut meta = SourceMeta { op: op.clone(), image: None, git: None, http: None };
        let image = |image: ResolvedImage| ImageMeta {
            digest: image.root.digest.clone(),
            config: if request.no_config { Bytes::new() } else { image.config_bytes.clone() },
        };
        match Identifier::parse(&op, &platform)? {
            Identifier::Image(mut id) => {
                if !request.resolve_mode.is_empty() {
                    id.resolve_mode = ResolveMode::parse(&request.resolve_mode)?;
                }
                meta.image = Some(image(self.resolve_image(&id, build, sessions, Some(progress)).await?));
            }
            Identifier::OciLayout(id) => {
                meta.image = Some(image(self.resolve_layout(&id, sessions).await?));
            }
            Identifier::Git(id) => {
                meta.git =
                    Some(self.git_metadata(&id, build, sessions, progress, request.git_objects).await?);
            }
            Identifier::Http(id) => {
                meta.http = Some(self.resolve_http(&id, build, sessions, progress).await?.metadata);
            }
            Identifier::Local(_) | Identifier::Blob(_) => {}
        }
        Ok(meta)
    }
}
