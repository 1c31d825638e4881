//! Where the progress of a vertex fans out to jobs, and how a job's stream of it is put right.

use crate::job::JobInner;
use crate::progress::ProgressTarget;
use crate::{
    Clock, Decision, Digest, Event, Log, Op, ProgressSink, Status, StatusId, Vertex, VertexEvent, Warning,
};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::SystemTime;

/// How much output of a vertex is kept for jobs that join it later; the oldest goes first.
const REPLAY_LOG_BYTES_MAX: usize = 256 * 1024;
/// How many status lines, warnings and decisions of a vertex are kept for jobs that join it later.
const REPLAY_ITEMS_MAX: usize = 4096;

/// The progress of one vertex and the jobs that have it.
pub(crate) struct Hub<O: Op> {
    clock: Arc<dyn Clock>,
    digest: Digest,
    inner: Mutex<Inner<O>>,
}

struct Inner<O: Op> {
    jobs: Vec<Arc<JobInner<O>>>,
    /// Hubs of vertices that take this one's result, with whether they repeat its output.
    followers: Vec<(Weak<Hub<O>>, bool)>,
    vertex: VertexEvent,
    statuses: HashMap<StatusId, (Status, SystemTime)>,
    logs: VecDeque<(Log, SystemTime)>,
    log_bytes: usize,
    warnings: Vec<Warning>,
    decisions: Vec<(Decision, SystemTime)>,
}

impl<O: Op> Hub<O> {
    pub(crate) fn new(clock: Arc<dyn Clock>, vertex: &Vertex<O>) -> Arc<Self> {
        let event = VertexEvent {
            digest: vertex.digest.clone(),
            inputs: vertex.inputs.iter().map(|input| input.vertex.clone()).collect(),
            name: vertex.options.name.clone(),
            started: None,
            completed: None,
            cached: false,
            error: None,
            progress_group: vertex.options.progress_group.clone(),
        };
        Arc::new(Hub {
            clock,
            digest: vertex.digest.clone(),
            inner: Mutex::new(Inner {
                jobs: Vec::new(),
                followers: Vec::new(),
                vertex: event,
                statuses: HashMap::new(),
                logs: VecDeque::new(),
                log_bytes: 0,
                warnings: Vec::new(),
                decisions: Vec::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner<O>> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Adds a job and tells it what happened so far. False if it was there.
    pub(crate) fn join(&self, job: &Arc<JobInner<O>>) -> bool {
        let mut inner = self.lock();
        if inner.jobs.iter().any(|known| Arc::ptr_eq(known, job)) {
            return false;
        }
        job.event(Event::Vertex(inner.vertex.clone()));
        for (decision, time) in &inner.decisions {
            job.event(Event::Decision {
                vertex: self.digest.clone(),
                decision: decision.clone(),
                time: *time,
            });
        }
        for (status, time) in inner.statuses.values() {
            job.event(Event::Status { vertex: self.digest.clone(), status: status.clone(), time: *time });
        }
        for (log, time) in &inner.logs {
            job.event(Event::Log { vertex: self.digest.clone(), log: log.clone(), time: *time });
        }
        for warning in &inner.warnings {
            job.event(Event::Warning { vertex: self.digest.clone(), warning: warning.clone() });
        }
        inner.jobs.push(job.clone());
        true
    }

    /// Takes a job away; true if no job is left.
    pub(crate) fn leave(&self, job: &Arc<JobInner<O>>) -> bool {
        let mut inner = self.lock();
        inner.jobs.retain(|known| !Arc::ptr_eq(known, job));
        inner.jobs.is_empty()
    }

    /// The jobs that have the vertex itself.
    pub(crate) fn jobs(&self) -> Vec<Arc<JobInner<O>>> {
        self.lock().jobs.clone()
    }

    /// The jobs that have the vertex, or one that takes its result.
    pub(crate) fn all_jobs(&self) -> Vec<Arc<JobInner<O>>> {
        let (mut jobs, followers) = {
            let inner = self.lock();
            (inner.jobs.clone(), inner.followers.clone())
        };
        for (follower, _) in followers {
            for job in follower.upgrade().map(|hub| hub.all_jobs()).unwrap_or_default() {
                if !jobs.iter().any(|known| Arc::ptr_eq(known, &job)) {
                    jobs.push(job);
                }
            }
        }
        jobs
    }

    /// Lets the jobs of `follower` take part in this vertex. Output is repeated under the follower's name if
    /// one of its jobs would not see it otherwise.
    pub(crate) fn follow(&self, follower: &Arc<Hub<O>>) {
        let jobs = follower.jobs();
        let mut inner = self.lock();
        let unseen = jobs.iter().any(|job| !inner.jobs.iter().any(|known| Arc::ptr_eq(known, job)));
        if inner.followers.iter().any(|(known, _)| known.as_ptr() == Arc::as_ptr(follower)) {
            return;
        }
        if unseen {
            for (status, _) in inner.statuses.values() {
                follower.status(status.clone());
            }
            for (log, _) in &inner.logs {
                follower.log(log.clone());
            }
        }
        inner.followers.push((Arc::downgrade(follower), unseen));
    }

    /// The vertex starts, for the first time or again.
    pub(crate) fn started(&self, cached: bool) {
        let now = self.clock.now();
        self.change(|vertex| {
            vertex.started = Some(now);
            vertex.completed = None;
            vertex.cached = cached;
            vertex.error = None;
        });
    }

    /// The vertex has ended.
    pub(crate) fn completed(&self, cached: bool, error: Option<String>) {
        let now = self.clock.now();
        self.change(|vertex| {
            vertex.started.get_or_insert(now);
            vertex.completed = Some(now);
            vertex.cached = cached;
            vertex.error = error.map(Into::into);
        });
    }

    /// The result of the vertex was loaded, which began at `started`.
    pub(crate) fn loaded(&self, started: SystemTime) {
        let now = self.clock.now();
        self.change(|vertex| {
            vertex.started = Some(started);
            vertex.completed = Some(now);
            vertex.cached = true;
            vertex.error = None;
        });
    }

    pub(crate) fn decision(&self, decision: Decision) {
        let time = self.clock.now();
        let mut inner = self.lock();
        if inner.decisions.len() < REPLAY_ITEMS_MAX {
            inner.decisions.push((decision.clone(), time));
        }
        for job in &inner.jobs {
            let (vertex, decision) = (self.digest.clone(), decision.clone());
            job.event(Event::Decision { vertex, decision, time });
        }
    }

    fn change(&self, edit: impl FnOnce(&mut VertexEvent)) {
        let mut inner = self.lock();
        edit(&mut inner.vertex);
        for job in &inner.jobs {
            job.event(Event::Vertex(inner.vertex.clone()));
        }
    }
}

impl<O: Op> Inner<O> {
    /// Hubs that repeat this one's output. Followers never lead back here: a vertex that takes the result of
    /// another does not run itself.
    fn repeaters(&mut self) -> Vec<Arc<Hub<O>>> {
        self.followers.retain(|(hub, _)| hub.strong_count() > 0);
        self.followers.iter().filter(|(_, repeat)| *repeat).filter_map(|(hub, _)| hub.upgrade()).collect()
    }
}

impl<O: Op> ProgressTarget for Hub<O> {
    fn status(&self, status: Status) {
        let time = self.clock.now();
        let mut inner = self.lock();
        if inner.statuses.len() < REPLAY_ITEMS_MAX || inner.statuses.contains_key(&status.id) {
            inner.statuses.insert(status.id.clone(), (status.clone(), time));
        }
        for job in &inner.jobs {
            job.event(Event::Status { vertex: self.digest.clone(), status: status.clone(), time });
        }
        for hub in inner.repeaters() {
            hub.status(status.clone());
        }
    }

    fn log(&self, log: Log) {
        let time = self.clock.now();
        let mut inner = self.lock();
        inner.log_bytes += log.data.len();
        inner.logs.push_back((log.clone(), time));
        while inner.log_bytes > REPLAY_LOG_BYTES_MAX || inner.logs.len() > REPLAY_ITEMS_MAX {
            let Some((oldest, _)) = inner.logs.pop_front() else { break };
            inner.log_bytes -= oldest.data.len();
        }
        for job in &inner.jobs {
            job.event(Event::Log { vertex: self.digest.clone(), log: log.clone(), time });
        }
        for hub in inner.repeaters() {
            hub.log(log.clone());
        }
    }

    fn warning(&self, warning: Warning) {
        let mut inner = self.lock();
        if inner.warnings.len() < REPLAY_ITEMS_MAX {
            inner.warnings.push(warning.clone());
        }
        for job in &inner.jobs {
            job.event(Event::Warning { vertex: self.digest.clone(), warning: warning.clone() });
        }
    }

    fn now(&self) -> SystemTime {
        self.clock.now()
    }
}

/// The stream of events of one job. A vertex that starts proves that its inputs need not run: those which
/// never started are reported as cached at that moment. When the job ends, what still runs is reported as
/// ended.
pub(crate) struct VertexStream {
    sink: Arc<dyn ProgressSink>,
    vertices: Mutex<Stream>,
}

#[derive(Default)]
struct Stream {
    state: HashMap<Digest, VertexEvent>,
    finished: bool,
}

impl VertexStream {
    pub(crate) fn new(sink: Arc<dyn ProgressSink>) -> Self {
        VertexStream { sink, vertices: Mutex::default() }
    }

    pub(crate) fn event(&self, event: Event) {
        let mut stream = self.vertices.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stream.finished {
            return;
        }
        let Event::Vertex(vertex) = event else {
            self.sink.event(event);
            return;
        };
        let mut stack = vec![vertex];
        let mut inputs = Vec::new();
        while let Some(vertex) = stack.pop() {
            if let Some(started) = vertex.started {
                for input in vertex.inputs.iter() {
                    if let Some(input) = stream.state.get_mut(input)
                        && !input.cached
                        && input.completed.is_none()
                    {
                        input.cached = true;
                        input.started = Some(started);
                        input.completed = Some(started);
                        stack.push(input.clone());
                    }
                }
            }
            stream.state.insert(vertex.digest.clone(), vertex.clone());
            inputs.push(vertex);
        }
        // Inputs before what started them.
        for vertex in inputs.into_iter().rev() {
            self.sink.event(Event::Vertex(vertex));
        }
    }

    /// Reports everything that has not ended as ended, once, and lets nothing through afterwards.
    pub(crate) fn finish(&self, now: SystemTime) {
        let mut stream = self.vertices.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if std::mem::replace(&mut stream.finished, true) {
            return;
        }
        for (_, mut vertex) in std::mem::take(&mut stream.state) {
            if vertex.started.is_some() && vertex.completed.is_none() {
                vertex.completed = Some(now);
                if !vertex.cached && vertex.error.is_none() {
                    vertex.error = Some("context canceled".into());
                }
                self.sink.event(Event::Vertex(vertex));
            }
        }
    }
}
