//! A job: one build, which may ask for many edges.

use crate::active::{Core, VertexState};
use crate::hub::VertexStream;
use crate::{
    CacheKey, CacheSource, Digest, Edge, Event, Graph, Op, ProgressSink, SolveError, SolveErrorKind, Vertex,
};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// The name of a job, given by whoever starts it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(Arc<str>);

impl JobId {
    /// From its text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        JobId(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How to build, see [`Job::build`].
pub struct BuildOptions<O: Op> {
    /// Caches to look into besides the solver's own.
    pub cache_sources: Vec<CacheSource<O>>,
}

impl<O: Op> Default for BuildOptions<O> {
    fn default() -> Self {
        BuildOptions { cache_sources: Vec::new() }
    }
}

impl<O: Op> Clone for BuildOptions<O> {
    fn clone(&self) -> Self {
        BuildOptions { cache_sources: self.cache_sources.clone() }
    }
}

/// The result of an edge with the keys it is known by.
pub struct CachedResult<O: Op> {
    pub(crate) output: O::Output,
    pub(crate) keys: Arc<[Arc<CacheKey>]>,
    pub(crate) vertex: Digest,
    pub(crate) index: usize,
}

impl<O: Op> Clone for CachedResult<O> {
    fn clone(&self) -> Self {
        CachedResult {
            output: self.output.clone(),
            keys: self.keys.clone(),
            vertex: self.vertex.clone(),
            index: self.index,
        }
    }
}

impl<O: Op> CachedResult<O> {
    /// The result itself.
    pub fn output(&self) -> &O::Output {
        &self.output
    }

    /// The result itself.
    pub fn into_output(self) -> O::Output {
        self.output
    }

    /// Its keys, with everything below them: see [`crate::export_records`].
    pub fn keys(&self) -> &[Arc<CacheKey>] {
        &self.keys
    }

    /// The vertex it came from.
    pub fn vertex(&self) -> &Digest {
        &self.vertex
    }

    /// Which of the vertex' outputs it is.
    pub fn index(&self) -> usize {
        self.index
    }
}

pub(crate) struct JobInner<O: Op> {
    pub(crate) id: JobId,
    pub(crate) context: Arc<O::JobContext>,
    pub(crate) stream: VertexStream,
    pub(crate) closed: CancellationToken,
    /// Every vertex this job holds.
    pub(crate) vertices: Mutex<Vec<Arc<VertexState<O>>>>,
}

impl<O: Op> JobInner<O> {
    pub(crate) fn new(id: JobId, context: Arc<O::JobContext>, sink: Arc<dyn ProgressSink>) -> Arc<Self> {
        Arc::new(JobInner {
            id,
            context,
            stream: VertexStream::new(sink),
            closed: CancellationToken::new(),
            vertices: Mutex::default(),
        })
    }

    pub(crate) fn event(&self, event: Event) {
        self.stream.event(event);
    }
}

struct Handle<O: Op> {
    core: Arc<Core<O>>,
    inner: Arc<JobInner<O>>,
    ended: AtomicBool,
}

impl<O: Op> Handle<O> {
    fn end(&self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        self.inner.closed.cancel();
        self.core.release_job(&self.inner);
        self.inner.stream.finish(self.core.clock.now());
    }
}

impl<O: Op> Drop for Handle<O> {
    fn drop(&mut self) {
        self.end();
    }
}

/// One build. Edges can be asked for repeatedly and at the same time; what they share is solved once. All
/// vertices stay in memory, with their results, until the job ends. Cheap to clone.
pub struct Job<O: Op>(Arc<Handle<O>>);

impl<O: Op> Clone for Job<O> {
    fn clone(&self) -> Self {
        Job(self.0.clone())
    }
}

impl<O: Op> Job<O> {
    pub(crate) fn new(core: Arc<Core<O>>, inner: Arc<JobInner<O>>) -> Self {
        Job(Arc::new(Handle { core, inner, ended: AtomicBool::new(false) }))
    }

    /// The job's name.
    pub fn id(&self) -> &JobId {
        &self.0.inner.id
    }

    /// What the job brought along.
    pub fn context(&self) -> &Arc<O::JobContext> {
        &self.0.inner.context
    }

    /// Solves one edge of `graph`. Only what the edge needs is loaded. Dropping the future, or ending the job,
    /// takes the interest away; what nobody else wants is then cancelled.
    pub async fn build(
        &self,
        graph: &Graph<O>,
        edge: &Edge,
        options: &BuildOptions<O>,
    ) -> Result<CachedResult<O>, SolveError<O>> {
        let Handle { core, inner, .. } = &*self.0;
        let work = core.build(inner, graph, edge, options);
        tokio::select! {
            biased;
            () = inner.closed.cancelled() => Err(SolveError::plain(SolveErrorKind::JobClosed)),
            result = work => result,
        }
    }

    /// All vertices this job holds, in no particular order: with the ops that are really used, which may have
    /// come with another job.
    pub fn vertices(&self) -> Vec<Vertex<O>> {
        let held = self.0.inner.vertices.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        held.iter().map(|state| state.vertex.clone()).collect()
    }

    /// Puts an event into the job's own progress: what frontends and exporters report outside of the graph.
    pub fn event(&self, event: Event) {
        self.0.inner.event(event);
    }

    /// Ends the job: running [`Job::build`]s fail, and what no other job wants is cancelled and forgotten.
    pub fn discard(&self) {
        self.0.end();
    }
}

/// The progress of something that is no vertex of a graph, see [`Job::progress`].
struct JobProgress<O: Op> {
    job: Job<O>,
    vertex: Digest,
}

impl<O: Op> crate::progress::ProgressTarget for JobProgress<O> {
    fn status(&self, status: crate::Status) {
        self.job.event(Event::Status { vertex: self.vertex.clone(), status, time: self.now() });
    }

    fn log(&self, log: crate::Log) {
        self.job.event(Event::Log { vertex: self.vertex.clone(), log, time: self.now() });
    }

    fn warning(&self, warning: crate::Warning) {
        self.job.event(Event::Warning { vertex: self.vertex.clone(), warning });
    }

    fn now(&self) -> std::time::SystemTime {
        self.job.0.core.clock.now()
    }
}

impl<O: Op> Job<O> {
    /// Writes progress of something outside of the graph, which [`Job::event`] has shown as a vertex of this digest.
    pub fn progress(&self, vertex: Digest) -> crate::Progress {
        crate::Progress(Arc::new(JobProgress { job: self.clone(), vertex }))
    }
}
