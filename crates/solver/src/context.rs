//! What an op gets to know about the build around it.

use crate::active::VertexState;
use crate::{BuildOptions, CachedResult, Digest, Edge, Graph, Op, Progress, SolveError, VertexOptions};
use std::future::Future;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Nobody wants the result any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("context canceled")]
pub struct Cancelled;

/// The context of a running op: who wants it, where to report, when to stop. Cheap to clone.
pub struct OpContext<O: Op> {
    pub(crate) state: Arc<VertexState<O>>,
    pub(crate) cancel: CancellationToken,
}

impl<O: Op> Clone for OpContext<O> {
    fn clone(&self) -> Self {
        OpContext { state: self.state.clone(), cancel: self.cancel.clone() }
    }
}

impl<O: Op> OpContext<O> {
    /// The contexts of all jobs that want this vertex at this moment, those which joined first in front.
    /// Ask again rather than keep the answer: jobs come and go while an op runs.
    pub fn jobs(&self) -> Vec<Arc<O::JobContext>> {
        self.state.job_contexts()
    }

    /// The digest of the vertex.
    pub fn vertex(&self) -> &Digest {
        &self.state.vertex.digest
    }

    /// Name, description and flags of the vertex.
    pub fn options(&self) -> &VertexOptions {
        &self.state.vertex.options
    }

    /// Where to report.
    pub fn progress(&self) -> Progress {
        Progress(self.state.hub.clone())
    }

    /// Fires when nobody wants the result any more.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// `future`, given up as soon as nobody wants the result any more.
    pub async fn cancellable<T>(&self, future: impl Future<Output = T>) -> Result<T, Cancelled> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Cancelled),
            value = future => Ok(value),
        }
    }

    /// Solves an edge of another graph on behalf of this op, for all jobs that have the vertex.
    pub async fn sub_build(
        &self,
        graph: &Graph<O>,
        edge: &Edge,
        options: &BuildOptions<O>,
    ) -> Result<CachedResult<O>, SolveError<O>> {
        let result = self.state.core.sub_build(&self.state, graph, edge, options).await?;
        self.state.add_sub_keys(result.keys());
        Ok(result)
    }
}
