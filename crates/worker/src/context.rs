//! What one build brings along for its vertices.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_llb::SourceOp;
use kiln_oci::Platform;
use kiln_session::daemon::SessionGroup;
use kiln_solver::{BuildOptions, OpContext};
use tokio::sync::OnceCell;

use crate::error::{Error, Result};
use crate::op::VertexOp;

/// Any error of a policy.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Judges sources before they are used.
#[async_trait::async_trait]
pub trait SourcePolicy: Send + Sync {
    /// Leaves the source as it is, changes it, or refuses it.
    ///
    /// # Errors
    /// The source is denied, or the policy could not be evaluated.
    async fn evaluate(&self, source: &mut SourceOp, platform: &Platform)
    -> std::result::Result<(), BoxError>;
}

/// What a build may do beyond the ordinary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`: steps may use the daemon's own network.
    pub network_host: bool,
    /// `security.insecure`: steps may run without confinement.
    pub security_insecure: bool,
}

/// A build, as its vertices see it. Vertices that several builds share see all of them.
pub struct BuildContext {
    sessions: SessionGroup,
    entitlements: Entitlements,
    policy: Option<Arc<dyn SourcePolicy>>,
    build_options: BuildOptions<VertexOp>,
    resolved: Arc<Mutex<HashMap<String, Resolving>>>,
}

type Resolving = Arc<OnceCell<String>>;

impl BuildContext {
    /// A build that may ask these sessions, the first of which started it.
    pub fn new(sessions: SessionGroup) -> BuildContext {
        BuildContext {
            sessions,
            entitlements: Entitlements::default(),
            policy: None,
            build_options: BuildOptions::default(),
            resolved: Arc::default(),
        }
    }

    /// With what was granted to it.
    #[must_use]
    pub fn with_entitlements(mut self, entitlements: Entitlements) -> BuildContext {
        self.entitlements = entitlements;
        self
    }

    /// With a policy about its sources.
    #[must_use]
    pub fn with_policy(mut self, policy: Arc<dyn SourcePolicy>) -> BuildContext {
        self.policy = Some(policy);
        self
    }

    /// The same build, its sources judged by another policy. What a name was found to stand for holds in both.
    #[must_use]
    pub fn judged_by(&self, policy: Arc<dyn SourcePolicy>) -> BuildContext {
        BuildContext {
            sessions: self.sessions.clone(),
            entitlements: self.entitlements,
            policy: Some(policy),
            build_options: self.build_options.clone(),
            resolved: self.resolved.clone(),
        }
    }

    /// With how definitions within definitions are solved: the caches to look into.
    #[must_use]
    pub fn with_build_options(mut self, options: BuildOptions<VertexOp>) -> BuildContext {
        self.build_options = options;
        self
    }

    pub fn sessions(&self) -> &SessionGroup {
        &self.sessions
    }

    pub fn entitlements(&self) -> Entitlements {
        self.entitlements
    }

    pub(crate) fn policy(&self) -> Option<&Arc<dyn SourcePolicy>> {
        self.policy.as_ref()
    }

    pub(crate) fn build_options(&self) -> &BuildOptions<VertexOp> {
        &self.build_options
    }

    /// What a mutable name (a tag, a branch) stands for throughout this build: asked for once, the same from then on.
    pub(crate) async fn resolve_once(
        &self,
        name: &str,
        ask: impl Future<Output = Result<String>>,
    ) -> Result<String> {
        let cell = {
            let mut resolved = self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
            resolved.entry(name.to_owned()).or_default().clone()
        };
        cell.get_or_try_init(|| ask).await.cloned()
    }
}

/// The sessions of all builds that want the vertex, each once.
pub(crate) fn sessions_of(cx: &OpContext<VertexOp>) -> SessionGroup {
    SessionGroup::new(cx.jobs().iter().flat_map(|job| job.sessions().ids().to_vec()))
}

/// The build that wanted the vertex first.
pub(crate) fn first_build(cx: &OpContext<VertexOp>) -> Result<Arc<BuildContext>> {
    cx.jobs().into_iter().next().ok_or(Error::Cancelled)
}
