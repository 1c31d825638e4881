//! What is in memory for the running jobs: vertices, shared by digest.

use crate::edge::EdgeState;
use crate::hub::Hub;
use crate::inflight::{Entry, Inflight};
use crate::job::JobInner;
use crate::stage::Stage;
use crate::{
    BuildOptions, Cache, CacheKey, CacheMap, CacheSource, CachedResult, Clock, Digest, Edge, Graph, KeyInput,
    Op, SolveError, SolveErrorKind, Vertex,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Digest of a vertex, and whether it ignores the cache.
type ActiveId = (Digest, bool);

/// What all vertices share.
pub(crate) struct Core<O: Op> {
    pub(crate) cache: Cache<O>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) inflight: Inflight<O>,
    active: Mutex<HashMap<ActiveId, Arc<VertexState<O>>>>,
}

/// One page of the cache map of an op.
type Page<O> = Stage<O, Arc<CacheMap<O>>>;

/// The edge asked for, and all vertices it needs.
type Loaded<O> = (EdgeRef<O>, Vec<Arc<VertexState<O>>>);

/// One vertex in memory, with everything that has been found out about it.
pub(crate) struct VertexState<O: Op> {
    pub(crate) core: Arc<Core<O>>,
    pub(crate) vertex: Vertex<O>,
    /// The vertex' inputs, resolved.
    pub(crate) inputs: Vec<EdgeRef<O>>,
    pub(crate) hub: Arc<Hub<O>>,
    /// Grows with every job that joins, so that a new job does not inherit an old failure.
    epoch: AtomicU64,
    sources: Mutex<Vec<CacheSource<O>>>,
    /// By their number. Few vertices have more than one output, and of those few edges are wanted.
    edges: Mutex<Vec<(usize, Arc<EdgeState<O>>)>>,
    /// The pages of the cache map.
    pub(crate) pages: Mutex<Vec<Arc<Page<O>>>>,
    /// Content keys of the inputs, after preprocessing them.
    pub(crate) contents: Vec<Stage<O, Option<Arc<CacheKey>>>>,
    pub(crate) executed: Stage<O, Arc<Executed<O>>>,
    /// Where others find this vertex by its keys.
    pub(crate) entered: Mutex<Vec<Entry>>,
    /// Vertices that the op builds by itself.
    children: Mutex<Vec<Arc<VertexState<O>>>>,
    sub_keys: Mutex<Vec<Arc<CacheKey>>>,
}

/// What came out of an execution, and how its inputs were known.
pub(crate) struct Executed<O: Op> {
    pub(crate) outputs: Vec<O::Output>,
    pub(crate) inputs: Vec<Vec<KeyInput>>,
}

/// One output of a vertex in memory.
pub(crate) struct EdgeRef<O: Op> {
    pub(crate) state: Arc<VertexState<O>>,
    pub(crate) output: usize,
}

impl<O: Op> Clone for EdgeRef<O> {
    fn clone(&self) -> Self {
        EdgeRef { state: self.state.clone(), output: self.output }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under the solver's locks leaves half a change behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<O: Op> Core<O> {
    pub(crate) fn new(cache: Cache<O>, clock: Arc<dyn Clock>) -> Self {
        Core { cache, clock, inflight: Inflight::default(), active: Mutex::default() }
    }

    pub(crate) fn active_vertices(&self) -> usize {
        lock(&self.active).len()
    }

    pub(crate) async fn build(
        self: &Arc<Self>,
        job: &Arc<JobInner<O>>,
        graph: &Graph<O>,
        edge: &Edge,
        options: &BuildOptions<O>,
    ) -> Result<CachedResult<O>, SolveError<O>> {
        let (edge, _) = self.load(std::slice::from_ref(job), graph, edge, &options.cache_sources)?;
        edge.result().await
    }

    pub(crate) async fn sub_build(
        self: &Arc<Self>,
        parent: &Arc<VertexState<O>>,
        graph: &Graph<O>,
        edge: &Edge,
        options: &BuildOptions<O>,
    ) -> Result<CachedResult<O>, SolveError<O>> {
        let mut sources = lock(&parent.sources).clone();
        sources.extend(options.cache_sources.iter().cloned());
        let (edge, loaded) = self.load(&parent.hub.all_jobs(), graph, edge, &sources)?;
        lock(&parent.children).extend(loaded);
        edge.result().await
    }

    /// Brings an edge and all it needs into memory, on behalf of `jobs`.
    fn load(
        self: &Arc<Self>,
        jobs: &[Arc<JobInner<O>>],
        graph: &Graph<O>,
        edge: &Edge,
        sources: &[CacheSource<O>],
    ) -> Result<Loaded<O>, SolveError<O>> {
        let unknown = || SolveError::plain(SolveErrorKind::UnknownEdge(edge.vertex.clone()));
        let top = graph.position(&edge.vertex).ok_or_else(unknown)?;
        let vertices = graph.vertices();
        let place = |input: &Edge| graph.position(&input.vertex).expect("a graph knows its inputs");

        let mut needed = vec![false; top + 1];
        needed[top] = true;
        for index in (0..=top).rev() {
            if needed[index] {
                vertices[index].inputs.iter().for_each(|input| needed[place(input)] = true);
            }
        }

        let mut active = lock(&self.active);
        if jobs.is_empty() || jobs.iter().any(|job| job.closed.is_cancelled()) {
            return Err(SolveError::plain(SolveErrorKind::JobClosed));
        }
        let mut loaded: Vec<Option<Arc<VertexState<O>>>> = vec![None; top + 1];
        for index in (0..=top).filter(|index| needed[*index]) {
            let vertex = &vertices[index];
            let input = |input: &Edge| EdgeRef {
                state: loaded[place(input)].clone().expect("inputs come first"),
                output: input.output,
            };
            let state = self.state(&mut active, vertex, || vertex.inputs.iter().map(input).collect());
            state.add_sources(sources);
            jobs.iter().for_each(|job| state.join(job));
            loaded[index] = Some(state);
        }
        let state = loaded[top].clone().expect("the top is needed");
        Ok((EdgeRef { state, output: edge.output }, loaded.into_iter().flatten().collect()))
    }

    /// The vertex in memory, put there if need be. One that ignores the cache also serves those who do not.
    fn state(
        self: &Arc<Self>,
        active: &mut HashMap<ActiveId, Arc<VertexState<O>>>,
        vertex: &Vertex<O>,
        inputs: impl FnOnce() -> Vec<EdgeRef<O>>,
    ) -> Arc<VertexState<O>> {
        let ignoring = (vertex.digest.clone(), true);
        if let Some(state) = active.get(&ignoring) {
            return state.clone();
        }
        let id = if vertex.options.ignore_cache { ignoring } else { (vertex.digest.clone(), false) };
        let make = || Arc::new(VertexState::new(self.clone(), vertex.clone(), inputs()));
        active.entry(id).or_insert_with(make).clone()
    }

    /// Forgets results that `lost` names and all failures, so that whoever asks again starts anew.
    pub(crate) fn forget(&self, lost: &dyn Fn(&O::Output) -> bool) {
        let states: Vec<Arc<VertexState<O>>> = lock(&self.active).values().cloned().collect();
        for state in states {
            lock(&state.edges).retain(|(_, edge)| !edge.is_spoilt(lost));
            lock(&state.pages).iter().for_each(|page| _ = page.forget(|_| false));
            state.contents.iter().for_each(|content| _ = content.forget(|_| false));
            state.executed.forget(|executed| executed.outputs.iter().any(lost));
        }
    }

    /// Takes a job off all its vertices, and forgets those that no job has any more.
    pub(crate) fn release_job(&self, job: &Arc<JobInner<O>>) {
        let mut forgotten = Vec::new();
        let mut active = lock(&self.active);
        let held = std::mem::take(&mut *lock(&job.vertices));
        for state in &held {
            if state.hub.leave(job) {
                let id = (state.vertex.digest.clone(), state.ignore_cache());
                if active.get(&id).is_some_and(|known| Arc::ptr_eq(known, state)) {
                    forgotten.extend(active.remove(&id));
                }
            }
        }
        if active.is_empty() {
            // A large graph leaves a large table behind.
            *active = HashMap::new();
        }
        drop(active);
        // Outside the lock: results may take their time to go.
        drop((held, forgotten));
    }
}

impl<O: Op> VertexState<O> {
    fn new(core: Arc<Core<O>>, vertex: Vertex<O>, inputs: Vec<EdgeRef<O>>) -> Self {
        VertexState {
            hub: Hub::new(core.clock.clone(), &vertex),
            epoch: AtomicU64::new(0),
            sources: Mutex::default(),
            edges: Mutex::default(),
            pages: Mutex::default(),
            contents: inputs.iter().map(|_| Stage::default()).collect(),
            executed: Stage::default(),
            entered: Mutex::default(),
            children: Mutex::default(),
            sub_keys: Mutex::default(),
            core,
            vertex,
            inputs,
        }
    }

    pub(crate) fn ignore_cache(&self) -> bool {
        self.vertex.options.ignore_cache
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The contexts of all jobs that want this vertex or take its result.
    pub(crate) fn job_contexts(&self) -> Vec<Arc<O::JobContext>> {
        self.hub.all_jobs().iter().map(|job| job.context.clone()).collect()
    }

    /// Adds a job to this vertex and to all below it.
    fn join(self: &Arc<Self>, job: &Arc<JobInner<O>>) {
        // A vertex found in memory may have other inputs than the job's graph says (some that ignore the cache),
        // so the job joins what is really used. In most cases the inputs have it already.
        let mut stack = vec![self.clone()];
        while let Some(state) = stack.pop() {
            if !state.hub.join(job) {
                continue;
            }
            state.epoch.fetch_add(1, Ordering::SeqCst);
            lock(&job.vertices).push(state.clone());
            stack.extend(state.inputs.iter().map(|input| input.state.clone()));
            stack.extend(lock(&state.children).iter().cloned());
        }
    }

    fn add_sources(&self, sources: &[CacheSource<O>]) {
        let mut known = lock(&self.sources);
        for source in sources {
            if source.name != self.core.cache.name && known.iter().all(|other| other.name != source.name) {
                known.push(source.clone());
            }
        }
    }

    /// All caches to look into, the solver's own first. Waits for imports that are on their way.
    pub(crate) async fn caches(&self) -> Vec<Cache<O>> {
        let sources = lock(&self.sources).clone();
        let mut caches = vec![self.core.cache.clone()];
        for source in sources {
            caches.extend(source.cache.await);
        }
        caches
    }

    pub(crate) fn edge(&self, output: usize) -> Arc<EdgeState<O>> {
        let mut edges = lock(&self.edges);
        if let Some((_, edge)) = edges.iter().find(|(number, _)| *number == output) {
            return edge.clone();
        }
        let edge = Arc::new(EdgeState::new(self.inputs.len()));
        edges.reserve_exact(1);
        edges.push((output, edge.clone()));
        edge
    }

    pub(crate) fn add_sub_keys(&self, keys: &[Arc<CacheKey>]) {
        // One key has the whole chain.
        lock(&self.sub_keys).extend(keys.first().cloned());
    }

    pub(crate) fn sub_keys(&self) -> Vec<Arc<CacheKey>> {
        lock(&self.sub_keys).clone()
    }

    /// Puts the vertex to an error that happened here.
    pub(crate) fn blame(&self, kind: SolveErrorKind<O>) -> SolveError<O> {
        SolveError {
            vertex: Some(self.vertex.digest.clone()),
            op: Some(self.vertex.op.clone()),
            description: self.vertex.options.description.clone(),
            kind,
        }
    }
}

impl<O: Op> Drop for VertexState<O> {
    /// Chains of any length are taken apart in a loop, not by recursion.
    fn drop(&mut self) {
        fn take<O: Op>(state: &mut VertexState<O>, stack: &mut Vec<Arc<VertexState<O>>>) {
            stack.extend(state.inputs.drain(..).map(|input| input.state));
            stack.append(state.children.get_mut().unwrap_or_else(PoisonError::into_inner));
        }
        let entered = std::mem::take(self.entered.get_mut().unwrap_or_else(PoisonError::into_inner));
        if !entered.is_empty() {
            self.core.inflight.remove(entered);
        }
        let mut stack = Vec::new();
        take(self, &mut stack);
        while let Some(state) = stack.pop() {
            if let Some(mut state) = Arc::into_inner(state) {
                take(&mut state, &mut stack);
            }
        }
    }
}
