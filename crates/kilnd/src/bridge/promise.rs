//! A result that may not be there yet: solved when somebody first asks for it, once.

use std::sync::Arc;

use kiln_export::provenance::Capture;
use kiln_frontend::Error;
use kiln_proto::pb;
use kiln_solver::{BuildOptions, CachedResult, Job};
use kiln_worker::{Loaded, VertexOp};
use tokio::sync::OnceCell;

use super::errors::of_solver;
use crate::attest;

/// A promised result. Clones share it.
#[derive(Clone)]
pub struct Promise(Arc<Inner>);

struct Inner {
    job: Job<VertexOp>,
    definition: pb::Definition,
    loaded: Loaded,
    options: BuildOptions<VertexOp>,
    result: OnceCell<Result<CachedResult<VertexOp>, Error>>,
}

impl Promise {
    /// `options` name the caches to look into.
    pub fn new(
        job: Job<VertexOp>,
        definition: pb::Definition,
        loaded: Loaded,
        options: BuildOptions<VertexOp>,
    ) -> Promise {
        Promise(Arc::new(Inner { job, definition, loaded, options, result: OnceCell::new() }))
    }

    /// The graph it is promised from.
    pub fn definition(&self) -> &pb::Definition {
        &self.0.definition
    }

    /// The result of one that was waited for.
    ///
    /// # Errors
    /// What failed.
    pub fn solved(&self) -> Result<CachedResult<VertexOp>, Error> {
        let unsolved = || Error::unknown("a result was taken before it was waited for");
        self.0.result.get().ok_or_else(unsolved)?.clone()
    }

    /// The result, if it has been waited for and is there.
    pub fn result_now(&self) -> Option<CachedResult<VertexOp>> {
        self.0.result.get()?.as_ref().ok().cloned()
    }

    /// What its steps used; `None` for a result that nobody waited for.
    pub fn capture(&self) -> Option<Capture> {
        self.result_now()?;
        Some(attest::capture(&self.0.job, &self.0.loaded))
    }

    /// Whether both are the same promise.
    pub fn is(&self, other: &Promise) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// What failed, with the lines of the user's file where the definition has them.
    pub async fn result(&self) -> Result<CachedResult<VertexOp>, Error> {
        let inner = &self.0;
        inner
            .result
            .get_or_init(|| async {
                let built = inner.job.build(&inner.loaded.graph, &inner.loaded.edge, &inner.options).await;
                built.map_err(|error| of_solver(&error))
            })
            .await
            .clone()
    }
}

impl std::fmt::Debug for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Promise").field("edge", &self.0.loaded.edge).finish_non_exhaustive()
    }
}
