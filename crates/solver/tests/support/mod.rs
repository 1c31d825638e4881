//! Ops that count how often they are asked, and what is needed to run them.
#![allow(dead_code)]

use futures::FutureExt;
use kiln_solver::{
    BuildOptions, Cache, CacheMap, CachedResult, Clock, Decision, Digest, Edge, Event, Graph, InputMap, Job,
    JobId, KeyStore, MemoryKeyStore, MemoryResultStore, Op, OpContext, ProgressSink, RecordId, SolveError,
    Solver, SolverOptions, Vertex, VertexOptions,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::sync::Semaphore;

/// A result: a text. Its name in the store is the text with the vertex that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    pub id: String,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Failure(pub String);

/// What happened to one op.
#[derive(Default)]
pub struct Counts {
    pub maps: AtomicUsize,
    pub runs: AtomicUsize,
    pub contents: AtomicUsize,
    pub cancelled: AtomicUsize,
}

impl Counts {
    pub fn maps(&self) -> usize {
        self.maps.load(Ordering::SeqCst)
    }
    pub fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
    pub fn contents(&self) -> usize {
        self.contents.load(Ordering::SeqCst)
    }
    pub fn cancelled(&self) -> usize {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// A step that can be told how to behave.
#[derive(Clone)]
pub struct Step {
    pub name: String,
    /// Enters the digest of the vertex, as any difference in the definition does.
    pub salt: String,
    /// Pages of the cache map.
    pub digests: Vec<String>,
    pub inputs: Vec<(String, usize)>,
    /// Inputs known by their content too.
    pub content: Vec<usize>,
    pub selectors: HashMap<usize, String>,
    /// The result; without one, the op's digest applied to the inputs.
    pub value: Option<String>,
    pub outputs: usize,
    pub fail: Option<String>,
    pub fail_map: Option<String>,
    pub ignore_cache: bool,
    /// Waits for a permit while running.
    pub gate: Option<Arc<Semaphore>>,
    pub map_gate: Option<Arc<Semaphore>>,
    pub limit: Option<Arc<Semaphore>>,
    pub orderly: bool,
    pub panics: bool,
    pub sub: Option<Arc<(Graph<Step>, Edge)>>,
    pub counts: Arc<Counts>,
}

pub fn step(name: &str) -> Step {
    Step {
        name: name.to_string(),
        salt: String::new(),
        digests: vec![name.to_string()],
        inputs: Vec::new(),
        content: Vec::new(),
        selectors: HashMap::new(),
        value: None,
        outputs: 1,
        fail: None,
        fail_map: None,
        ignore_cache: false,
        gate: None,
        map_gate: None,
        limit: None,
        orderly: false,
        panics: false,
        sub: None,
        counts: Arc::default(),
    }
}

impl Step {
    pub fn on(mut self, input: &str) -> Self {
        self.inputs.push((input.to_string(), 0));
        self
    }
    pub fn on_output(mut self, input: &str, output: usize) -> Self {
        self.inputs.push((input.to_string(), output));
        self
    }
    /// An input known by content.
    pub fn on_content(mut self, input: &str) -> Self {
        self.content.push(self.inputs.len());
        self.on(input)
    }
    pub fn digest(mut self, digest: &str) -> Self {
        self.digests = vec![digest.to_string()];
        self
    }
    pub fn value(mut self, value: &str) -> Self {
        self.value = Some(value.to_string());
        self
    }
    pub fn salt(mut self, salt: &str) -> Self {
        self.salt = salt.to_string();
        self
    }
    pub fn ignoring(mut self) -> Self {
        self.ignore_cache = true;
        self
    }
    pub fn failing(mut self, text: &str) -> Self {
        self.fail = Some(text.to_string());
        self
    }
    pub fn gated(mut self, gate: &Arc<Semaphore>) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

impl Op for Step {
    type Output = Text;
    type Error = Failure;
    type JobContext = String;

    async fn cache_map(&self, page: usize, _cx: &OpContext<Self>) -> Result<CacheMap<Self>, Failure> {
        self.counts.maps.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.map_gate {
            gate.acquire().await.expect("open").forget();
        }
        if let Some(text) = &self.fail_map {
            return Err(Failure(text.clone()));
        }
        let mut map = CacheMap::new(Digest::new(self.digests[page].as_str()));
        map.done = page + 1 == self.digests.len();
        for index in 0..self.inputs.len() {
            let selector = self.selectors.get(&index).map(|text| Digest::new(text.as_str()));
            let mut input = InputMap { selector, ..InputMap::default() };
            if self.content.contains(&index) {
                let counts = self.counts.clone();
                input.content_key = Some(Arc::new(move |output: Text, _cx| {
                    counts.contents.fetch_add(1, Ordering::SeqCst);
                    async move { Ok(Some(Digest::of(output.text.as_bytes()))) }.boxed()
                }));
            }
            map.inputs.push(input);
        }
        Ok(map)
    }

    async fn execute(&self, inputs: Vec<Text>, cx: &OpContext<Self>) -> Result<Vec<Text>, Failure> {
        struct OnDrop(Arc<Counts>, bool);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.cancelled.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        self.counts.runs.fetch_add(1, Ordering::SeqCst);
        let mut guard = OnDrop(self.counts.clone(), false);
        cx.progress().log(1, format!("run {}\n", self.name));
        if let Some(gate) = &self.gate {
            if self.orderly {
                if cx.cancellable(gate.acquire()).await.is_err() {
                    // Ends in order, which takes a while.
                    tokio::task::yield_now().await;
                    self.counts.cancelled.fetch_add(100, Ordering::SeqCst);
                    guard.1 = true;
                    return Err(Failure("stopped".into()));
                }
            } else {
                gate.acquire().await.expect("open").forget();
            }
        }
        guard.1 = true;
        assert!(!self.panics, "this op panics");
        if let Some(text) = &self.fail {
            return Err(Failure(text.clone()));
        }
        let mut inputs: Vec<String> = inputs.into_iter().map(|input| input.text).collect();
        if let Some(sub) = &self.sub {
            let built = cx.sub_build(&sub.0, &sub.1, &BuildOptions::default()).await;
            inputs.push(built.map_err(|error| Failure(error.to_string()))?.output().text.clone());
        }
        let text = |output: usize| match &self.value {
            Some(value) if output == 0 => value.clone(),
            Some(value) => format!("{value}#{output}"),
            None => format!("{}({})#{output}", self.digests[0], inputs.join(",")),
        };
        let id = |output: usize| format!("{}@{}/{}", text(output), self.name, self.salt);
        Ok((0..self.outputs).map(|output| Text { text: text(output), id: id(output) }).collect())
    }

    fn drop_on_cancel(&self) -> bool {
        !self.orderly
    }

    fn semaphore(&self) -> Option<Arc<Semaphore>> {
        self.limit.clone()
    }
}

/// Steps in an order where inputs come first. Digests are those of the definitions: name, salt and inputs.
pub fn graph(steps: &[Step]) -> (Graph<Step>, Edge) {
    let mut digests: HashMap<String, Digest> = HashMap::new();
    let mut vertices = Vec::new();
    for step in steps {
        let mut text = format!("{}|{}|{}", step.name, step.salt, step.digests.join("+"));
        let mut inputs = Vec::new();
        for (name, output) in &step.inputs {
            let digest = digests[name].clone();
            text.push_str(&format!("|{digest}:{output}"));
            inputs.push(Edge::new(digest, *output));
        }
        let digest = Digest::of(text.as_bytes());
        digests.insert(step.name.clone(), digest.clone());
        let options = VertexOptions {
            ignore_cache: step.ignore_cache,
            name: step.name.as_str().into(),
            ..VertexOptions::default()
        };
        vertices.push(Vertex {
            digest,
            op: Arc::new(step.clone()),
            inputs: inputs.into(),
            options: Arc::new(options),
        });
    }
    let top = vertices.last().expect("a step").digest.clone();
    (Graph::new(vertices).expect("a graph"), Edge::new(top, 0))
}

/// A clock that goes on by a second each time it is looked at.
#[derive(Default)]
pub struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + self.0.fetch_add(1, Ordering::SeqCst))
    }
}

#[derive(Default)]
pub struct Events(pub Mutex<Vec<Event>>);

impl ProgressSink for Events {
    fn event(&self, event: Event) {
        self.0.lock().expect("events").push(event);
    }
}

impl Events {
    pub fn decisions(&self, vertex: &Digest) -> Vec<Decision> {
        let events = self.0.lock().expect("events");
        let of = |event: &Event| match event {
            Event::Decision { vertex: of, decision, .. } if of == vertex => Some(decision.clone()),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }

    /// The last state of each vertex: started, completed, cached, error.
    pub fn last(&self, name: &str) -> Option<kiln_solver::VertexEvent> {
        let events = self.0.lock().expect("events");
        let of = |event: &Event| match event {
            Event::Vertex(vertex) if &*vertex.name == name => Some(vertex.clone()),
            _ => None,
        };
        events.iter().rev().find_map(of)
    }

    pub fn logs(&self) -> String {
        let events = self.0.lock().expect("events");
        let of = |event: &Event| match event {
            Event::Log { log, .. } => Some(String::from_utf8_lossy(&log.data).into_owned()),
            _ => None,
        };
        events.iter().filter_map(of).collect()
    }
}

pub struct World {
    pub solver: Solver<Step>,
    pub keys: Arc<MemoryKeyStore>,
    pub results: Arc<MemoryResultStore<Step>>,
    jobs: AtomicUsize,
}

pub fn cache(name: &str) -> (Cache<Step>, Arc<MemoryKeyStore>, Arc<MemoryResultStore<Step>>) {
    let keys = Arc::new(MemoryKeyStore::new());
    let results = Arc::new(MemoryResultStore::new(|text: &Text| RecordId::new(text.id.as_str())));
    (Cache::new(name, keys.clone() as Arc<dyn KeyStore>, results.clone()), keys, results)
}

impl World {
    pub fn new() -> Self {
        let (cache, keys, results) = cache("local");
        let solver = Solver::new(SolverOptions { cache, clock: Arc::new(Ticks::default()) });
        World { solver, keys, results, jobs: AtomicUsize::new(0) }
    }

    /// The same cache, another process.
    pub fn restarted(self) -> Self {
        let cache = Cache::new("local", self.keys.clone() as Arc<dyn KeyStore>, self.results.clone());
        let solver = Solver::new(SolverOptions { cache, clock: Arc::new(Ticks(AtomicU64::new(100_000))) });
        World { solver, keys: self.keys, results: self.results, jobs: AtomicUsize::new(0) }
    }

    pub fn job(&self) -> Job<Step> {
        self.job_with(Arc::new(Events::default()))
    }

    pub fn job_with(&self, events: Arc<Events>) -> Job<Step> {
        let id = self.jobs.fetch_add(1, Ordering::SeqCst).to_string();
        self.solver.new_job(JobId::new(id.as_str()), Arc::new(id), events)
    }

    /// Builds the last step in a job of its own.
    pub async fn build(&self, steps: &[Step]) -> Result<CachedResult<Step>, SolveError<Step>> {
        self.build_with(steps, &BuildOptions::default()).await
    }

    pub async fn build_with(
        &self,
        steps: &[Step],
        options: &BuildOptions<Step>,
    ) -> Result<CachedResult<Step>, SolveError<Step>> {
        let (graph, edge) = graph(steps);
        self.job().build(&graph, &edge, options).await
    }

    pub async fn text(&self, steps: &[Step]) -> String {
        self.build(steps).await.expect("built").output().text.clone()
    }
}

/// Lets all tasks run until nothing more happens.
pub async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Polls until `done`.
pub async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never happened");
}
