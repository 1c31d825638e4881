//! The solver as its user holds it.

use crate::active::Core;
use crate::job::JobInner;
use crate::{Cache, Clock, Job, JobId, NoProgress, Op, ProgressSink, SystemClock};
use std::sync::Arc;

/// What a [`Solver`] is made with.
pub struct SolverOptions<O: Op> {
    /// The cache that results are saved to.
    pub cache: Cache<O>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl<O: Op> SolverOptions<O> {
    /// This cache and the machine's clock.
    pub fn new(cache: Cache<O>) -> Self {
        SolverOptions { cache, clock: Arc::new(SystemClock) }
    }
}

/// The graph of everything that is being solved for any job. Cheap to clone.
///
/// Its futures run on the tokio runtime in which they are first polled.
pub struct Solver<O: Op> {
    core: Arc<Core<O>>,
}

impl<O: Op> Clone for Solver<O> {
    fn clone(&self) -> Self {
        Solver { core: self.core.clone() }
    }
}

impl<O: Op> Solver<O> {
    /// A solver with nothing to do.
    pub fn new(options: SolverOptions<O>) -> Self {
        Solver { core: Arc::new(Core::new(options.cache, options.clock)) }
    }

    /// Starts a job. `context` is handed to its ops, `progress` gets its events. The job ends when the last
    /// clone of what is returned is dropped, or with [`Job::discard`].
    ///
    /// Ids are the caller's business: the solver only carries them.
    pub fn new_job(&self, id: JobId, context: Arc<O::JobContext>, progress: Arc<dyn ProgressSink>) -> Job<O> {
        Job::new(self.core.clone(), JobInner::new(id, context, progress))
    }

    /// A job that reports to nobody.
    pub fn new_quiet_job(&self, id: JobId, context: Arc<O::JobContext>) -> Job<O> {
        self.new_job(id, context, Arc::new(NoProgress))
    }

    /// How many vertices are held for the running jobs.
    pub fn active_vertices(&self) -> usize {
        self.core.active_vertices()
    }

    /// The cache that results are saved to.
    pub fn cache(&self) -> &Cache<O> {
        &self.core.cache
    }

    /// Forgets results which turned out to be worthless (`lost` names them) and all failures: in memory, and the records of the
    /// solver's own cache. Jobs that ask again have them made anew. `output_of` gives the result of a record.
    ///
    /// Walks all vertices and records: for the rare case that an imported result cannot be had after all.
    ///
    /// # Errors
    /// What the key store says.
    pub fn forget(
        &self,
        lost: &dyn Fn(&O::Output) -> bool,
        output_of: &dyn Fn(&crate::RecordId) -> Option<O::Output>,
    ) -> Result<(), crate::StoreError> {
        let keys = &self.core.cache.keys;
        for record in keys.all_records()? {
            if output_of(&record).is_some_and(|output| lost(&output)) {
                keys.release(&record)?;
            }
        }
        self.core.forget(lost);
        Ok(())
    }

    /// Releases every record of the solver's cache whose result is gone. Walks the whole store: for start-up
    /// and after a prune.
    pub fn release_unreferenced(&self) -> Result<usize, crate::StoreError> {
        let cache = &self.core.cache;
        let mut released = 0;
        for record in cache.keys.all_records()? {
            if !cache.results.exists(&record) {
                cache.keys.release(&record)?;
                released += 1;
            }
        }
        Ok(released)
    }
}
