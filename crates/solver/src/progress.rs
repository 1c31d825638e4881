//! Progress of vertices: what ops report, and what jobs get to see.

use crate::{Decision, Digest, ProgressGroup};
use bytes::Bytes;
use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

/// Identifies a status line within a vertex; the same id again updates the line.
pub type StatusId = Arc<str>;

/// The state of a vertex. Later events of the same digest replace earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexEvent {
    /// Which vertex.
    pub digest: Digest,
    /// Vertices it depends on.
    pub inputs: Arc<[Digest]>,
    /// What to call it.
    pub name: Arc<str>,
    /// When it started last.
    pub started: Option<SystemTime>,
    /// When it ended, after `started`.
    pub completed: Option<SystemTime>,
    /// It did not have to run.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<Arc<str>>,
    /// Group in displays.
    pub progress_group: Option<Arc<ProgressGroup>>,
}

/// A part of a vertex' work with a measure of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which line of the vertex.
    pub id: StatusId,
    /// What is being done.
    pub name: Arc<str>,
    /// Done so far, in units of `total`.
    pub current: i64,
    /// All there is to do; 0 if unknown.
    pub total: i64,
    /// When it started.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub completed: Option<SystemTime>,
}

/// Output of a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// 1 standard output, 2 standard error.
    pub stream: i32,
    /// What was written.
    pub data: Bytes,
}

/// Something the user should know, though it stops nothing.
#[derive(Clone)]
pub struct Warning {
    /// Grows with unimportance.
    pub level: i32,
    /// One line.
    pub short: Bytes,
    /// More lines.
    pub detail: Vec<Bytes>,
    /// Where to read on.
    pub url: String,
    /// Where in the user's files: opaque here, whoever makes the warning and whoever shows it agree on it.
    pub location: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warning")
            .field("short", &self.short)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// What a job's sink receives.
#[derive(Clone, Debug)]
pub enum Event {
    /// A vertex came into view or changed.
    Vertex(VertexEvent),
    /// A status line.
    Status {
        /// Whose.
        vertex: Digest,
        /// The line.
        status: Status,
        /// When.
        time: SystemTime,
    },
    /// Output.
    Log {
        /// Whose.
        vertex: Digest,
        /// The output.
        log: Log,
        /// When.
        time: SystemTime,
    },
    /// A warning.
    Warning {
        /// Whose.
        vertex: Digest,
        /// The warning.
        warning: Warning,
    },
    /// Why a vertex runs or does not.
    Decision {
        /// Whose.
        vertex: Digest,
        /// The decision.
        decision: Decision,
        /// When.
        time: SystemTime,
    },
}

/// Receives the progress of a job. Called from within ops and the solver: must not block, and has to bound
/// what it keeps by itself.
pub trait ProgressSink: Send + Sync + 'static {
    /// Takes one event. Events of one vertex come in order.
    fn event(&self, event: Event);
}

/// A sink that forgets everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoProgress;

impl ProgressSink for NoProgress {
    fn event(&self, _event: Event) {}
}

/// The progress of one vertex, as its op writes it. Goes to every job that has the vertex; a job which joins
/// later gets the state so far first. Cheap to clone.
#[derive(Clone)]
pub struct Progress(pub(crate) Arc<dyn ProgressTarget>);

pub(crate) trait ProgressTarget: Send + Sync {
    fn status(&self, status: Status);
    fn log(&self, log: Log);
    fn warning(&self, warning: Warning);
    fn now(&self) -> SystemTime;
}

struct Unseen;

impl ProgressTarget for Unseen {
    fn status(&self, _status: Status) {}
    fn log(&self, _log: Log) {}
    fn warning(&self, _warning: Warning) {}
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
}

impl Progress {
    /// The progress of something that no job shows.
    pub fn unseen() -> Self {
        Progress(Arc::new(Unseen))
    }

    /// Writes or updates a status line.
    pub fn status(&self, status: Status) {
        self.0.status(status);
    }

    /// Writes output: stream 1 or 2.
    pub fn log(&self, stream: i32, data: impl Into<Bytes>) {
        self.0.log(Log { stream, data: data.into() });
    }

    /// Writes a warning.
    pub fn warning(&self, warning: Warning) {
        self.0.warning(warning);
    }

    /// The time, by the solver's clock.
    pub fn now(&self) -> SystemTime {
        self.0.now()
    }
}
