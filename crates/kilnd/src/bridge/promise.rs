//! A result that may not be there yet: solved when somebody first asks for it, once.

use std::sync::{Arc, Mutex, PoisonError};

use kiln_export::provenance::Capture;
use kiln_frontend::Error;
use kiln_proto::pb;
use kiln_solver::{BuildOptions, CachedResult, Job};
use kiln_worker::{Loaded, VertexOp};
use tokio::sync::OnceCell;

use super::errors::of_solver;
use super::imports::Imports;
use super::sent::Sent;
use crate::attest;

/// A promised result. Clones share it.
#[derive(Clone)]
pub struct Promise(Arc<Inner>);

struct Inner {
    job: Job<VertexOp>,
    definition: Arc<Sent>,
    loaded: Loaded,
    options: BuildOptions<VertexOp>,
    imports: Arc<Imports>,
    attempt: Mutex<Arc<Attempt>>,
}

/// One try to solve it: there is a second one when a cache that the first relied on turned out to be damaged.
#[derive(Default)]
struct Attempt {
    generation: u64,
    result: OnceCell<Result<CachedResult<VertexOp>, Error>>,
}

impl Promise {
    /// `options` name the caches to look into.
    pub fn new(
        job: Job<VertexOp>,
        definition: pb::Definition,
        loaded: Loaded,
        options: BuildOptions<VertexOp>,
        imports: Arc<Imports>,
    ) -> Promise {
        let attempt = Attempt { generation: imports.generation(), ..Attempt::default() };
        let attempt = Mutex::new(Arc::new(attempt));
        let definition = Arc::new(Sent::new(definition));
        Promise(Arc::new(Inner { job, definition, loaded, options, imports, attempt }))
    }

    /// The graph it is promised from.
    pub fn definition(&self) -> &Arc<Sent> {
        &self.0.definition
    }

    /// The result of one that was waited for.
    ///
    /// # Errors
    /// What failed.
    pub fn solved(&self) -> Result<CachedResult<VertexOp>, Error> {
        let unsolved = || Error::unknown("a result was taken before it was waited for");
        self.attempt().result.get().ok_or_else(unsolved)?.clone()
    }

    /// The result, if it has been waited for and is there.
    pub fn result_now(&self) -> Option<CachedResult<VertexOp>> {
        self.attempt().result.get()?.as_ref().ok().cloned()
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
        loop {
            let attempt = self.attempt();
            let work = async {
                let built = inner.job.build(&inner.loaded.graph, &inner.loaded.edge, &inner.options).await;
                built.map_err(|error| of_solver(&error))
            };
            let done = attempt.result.get_or_init(|| work).await.clone();
            let again = match &done {
                Ok(result) => {
                    inner.imports.generation() > attempt.generation && inner.imports.is_lost(result.output())
                }
                Err(error) if error.code() == tonic::Code::Cancelled => false,
                Err(_) => inner.imports.recover(attempt.generation),
            };
            if !again {
                return done;
            }
            self.renew(&attempt);
        }
    }

    fn attempt(&self) -> Arc<Attempt> {
        self.0.attempt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets a try, unless somebody has already.
    fn renew(&self, old: &Arc<Attempt>) {
        let mut attempt = self.0.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&attempt, old) {
            let generation = self.0.imports.generation();
            *attempt = Arc::new(Attempt { generation, ..Attempt::default() });
        }
    }
}

impl std::fmt::Debug for Promise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Promise").field("edge", &self.0.loaded.edge).finish_non_exhaustive()
    }
}
