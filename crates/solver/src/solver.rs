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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BuildOptions, CacheMap, Digest, Edge, Graph, MemoryKeyStore, MemoryResultStore, OpContext, RecordId,
        Vertex,
    };

    struct Step(Digest);

    impl Op for Step {
        type Output = Digest;
        type Error = std::io::Error;
        type JobContext = ();

        async fn cache_map(
            &self,
            _page: usize,
            _cx: &OpContext<Self>,
        ) -> Result<CacheMap<Self>, Self::Error> {
            Ok(CacheMap::new(self.0.clone()))
        }

        async fn execute(
            &self,
            _inputs: Vec<Digest>,
            _cx: &OpContext<Self>,
        ) -> Result<Vec<Digest>, Self::Error> {
            Ok(vec![self.0.clone()])
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_chain_when_its_job_has_ended() {
        let results = MemoryResultStore::<Step>::new(|output| RecordId::new(output.as_str()));
        let cache = Cache::new("own", Arc::new(MemoryKeyStore::new()), Arc::new(results));
        let solver = Solver::new(SolverOptions::new(cache));
        let mut vertices: Vec<Vertex<Step>> = Vec::new();
        for number in 0..5_u8 {
            let digest = Digest::of(&[number]);
            let inputs =
                vertices.last().map(|below| Edge::new(below.digest.clone(), 0)).into_iter().collect();
            let op = Arc::new(Step(digest.clone()));
            vertices.push(Vertex { digest, op, inputs, options: Arc::default() });
        }
        let edge = Edge::new(Digest::of(&[4]), 0);
        let graph = Graph::new(vertices).unwrap();
        let job = solver.new_quiet_job(JobId::new("job"), Arc::new(()));
        let built = job.build(&graph, &edge, &BuildOptions::default()).await;
        assert!(built.is_ok_and(|built| *built.output() == Digest::of(&[4])));
        assert!(!solver.core.inflight.is_empty());
        drop(job);
        assert_eq!(solver.active_vertices(), 0);
        // Tasks that have just ended let go of their vertices a moment later.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(solver.core.inflight.is_empty());
    }
}
