//! Telling how an import or export goes: lines of status under its vertex.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use kiln_oci::Descriptor;
use kiln_solver::{Digest, Event, Log, ProgressSink, Status};
use kiln_store::{FetchEvent, FetchObserver};

/// Between two updates of one line.
const UPDATE_EVERY: Duration = Duration::from_millis(100);

/// Where progress goes.
#[derive(Clone)]
pub struct Reporter {
    sink: Arc<dyn ProgressSink>,
    vertex: Digest,
}

/// The vertex of a build's exporter number `id`.
pub fn exporter_vertex(session: &str, id: u32) -> Digest {
    Digest::of(format!("{session}-export-{id}").as_bytes())
}

impl Reporter {
    /// Progress of `vertex`.
    pub fn new(sink: Arc<dyn ProgressSink>, vertex: Digest) -> Self {
        Self { sink, vertex }
    }

    /// Begins a line; it ends when the step is dropped.
    pub fn step(&self, id: impl Into<Arc<str>>) -> Step {
        self.step_called(id, "")
    }

    /// Begins a line that says what is done to the thing `id`.
    pub fn step_called(&self, id: impl Into<Arc<str>>, action: &str) -> Step {
        let step = Step {
            reporter: self.clone(),
            id: id.into(),
            action: action.into(),
            started: SystemTime::now(),
            state: Mutex::new(State { current: 0, total: 0, shown: Instant::now() }),
        };
        step.show(None);
        step
    }

    /// Writes a line of log.
    pub fn log(&self, line: &str) {
        const STDERR: i32 = 2;
        let log = Log { stream: STDERR, data: Bytes::from(format!("{line}\n")) };
        self.sink.event(Event::Log { vertex: self.vertex.clone(), log, time: SystemTime::now() });
    }
}

/// A line of progress. Ends when dropped, whatever became of it.
pub struct Step {
    reporter: Reporter,
    id: Arc<str>,
    action: Arc<str>,
    started: SystemTime,
    state: Mutex<State>,
}

struct State {
    current: i64,
    total: i64,
    shown: Instant,
}

impl Step {
    /// So much of so much is done.
    pub fn progress(&self, current: u64, total: u64) {
        let due = {
            let mut state = self.state.lock().expect("no panic while held");
            state.current = i64::try_from(current).unwrap_or(i64::MAX);
            state.total = i64::try_from(total).unwrap_or(i64::MAX);
            let due = state.shown.elapsed() >= UPDATE_EVERY;
            if due {
                state.shown = Instant::now();
            }
            due
        };
        if due {
            self.show(None);
        }
    }

    /// Where this step's progress goes.
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    fn show(&self, completed: Option<SystemTime>) {
        let (current, total) = {
            let state = self.state.lock().expect("no panic while held");
            (state.current, state.total)
        };
        let status = Status {
            id: self.id.clone(),
            name: self.action.clone(),
            current,
            total,
            started: Some(self.started),
            completed,
        };
        let vertex = self.reporter.vertex.clone();
        self.reporter.sink.event(Event::Status { vertex, status, time: SystemTime::now() });
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.show(Some(SystemTime::now()));
    }
}

/// Downloads of layers that an export needs.
pub struct Downloads(pub Reporter);

impl FetchObserver for Downloads {
    fn event(&self, descriptor: &Descriptor, event: FetchEvent<'_>) {
        if let FetchEvent::Retry(reason) = event {
            self.0.log(&format!("download of {} interrupted, trying again: {reason}", descriptor.digest));
        }
    }
}
