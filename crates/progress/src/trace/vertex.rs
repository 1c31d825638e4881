//! What is known of one vertex, or of a group that is shown as one.

use std::collections::{BTreeMap, HashMap};

use super::{LogBuffer, VertexIndex};
use crate::Timestamp;
use crate::event::{Vertex, VertexDigest, VertexLog, VertexStatus, VertexWarning};
use crate::intervals::{self, Interval};
use crate::terminal::Terminal;

/// How the daemon ends the error of a vertex that was cancelled.
const CANCELED: &str = "context canceled";
/// A display sets the real size before it draws.
const INITIAL_TERMINAL: (usize, usize) = (6, 80);

/// One line of a display and what hangs below it.
#[derive(Debug)]
pub struct VertexState {
    /// Identity: a vertex digest, or the id of a group.
    pub digest: VertexDigest,
    /// What a person sees.
    pub name: String,
    /// Whether it came out of the cache; a group only if all of it did.
    pub cached: bool,
    /// Why it failed; empty where it did not.
    pub error: String,
    /// A group of which only weak members have started.
    pub hidden: bool,
    /// Output so far.
    pub logs: LogBuffer,
    /// Warnings found at it.
    pub warnings: Vec<VertexWarning>,
    /// The last rows of its output.
    pub terminal: Terminal,
    /// Bytes of output so far, which decide whose terminal is shown.
    pub terminal_bytes: usize,
    /// Changes since the display last turned to this vertex.
    pub activity: u64,
    /// When the first of those changes came, on the caller's clock.
    pub waiting_since: Option<Timestamp>,
    statuses: Vec<StatusState>,
    by_id: HashMap<String, usize>,
    started: Option<Timestamp>,
    completed: Option<Timestamp>,
    by_start: HashMap<Timestamp, Interval>,
    merged: Vec<Interval>,
}

/// A part of a vertex and whether it changed since it was last printed.
#[derive(Debug)]
pub struct StatusState {
    /// The newest event.
    pub event: VertexStatus,
    /// Not yet printed.
    pub changed: bool,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) index: VertexIndex,
    pub(super) members: BTreeMap<VertexDigest, Member>,
}

#[derive(Debug)]
pub(super) struct Member {
    interval: Option<Interval>,
    cached: bool,
    error: String,
    weak: bool,
}

impl Group {
    pub(super) fn new(index: VertexIndex) -> Self {
        Self { index, members: BTreeMap::new() }
    }
}

impl Member {
    pub(super) fn new(event: &Vertex, weak: bool) -> Self {
        let interval = event.started.map(|start| Interval { start, stop: event.completed });
        Self { interval, cached: event.cached, error: event.error.clone(), weak }
    }
}

impl VertexState {
    pub(super) fn new(digest: &str) -> Self {
        Self {
            digest: digest.to_owned(),
            name: String::new(),
            cached: false,
            error: String::new(),
            hidden: false,
            logs: LogBuffer::default(),
            warnings: Vec::new(),
            terminal: Terminal::new(INITIAL_TERMINAL.0, INITIAL_TERMINAL.1),
            terminal_bytes: 0,
            activity: 0,
            waiting_since: None,
            statuses: Vec::new(),
            by_id: HashMap::new(),
            started: None,
            completed: None,
            by_start: HashMap::new(),
            merged: Vec::new(),
        }
    }

    /// Whether work on it has begun.
    pub fn is_started(&self) -> bool {
        !self.merged.is_empty()
    }

    /// Whether nothing works on it any more. A vertex may be taken up again later.
    pub fn is_completed(&self) -> bool {
        self.merged.last().is_some_and(|last| last.stop.is_some())
    }

    /// When the last of the work ended.
    pub fn completed(&self) -> Option<Timestamp> {
        self.merged.last().and_then(|last| last.stop)
    }

    /// Whether it failed because the build was cancelled.
    pub fn is_canceled(&self) -> bool {
        self.error.ends_with(CANCELED)
    }

    /// Whether it failed of itself.
    pub fn is_failed(&self) -> bool {
        !self.error.is_empty() && !self.is_canceled()
    }

    /// When it was worked on, on the daemon's clock, in order and without overlap.
    pub fn intervals(&self) -> &[Interval] {
        &self.merged
    }

    /// Its parts that have started, in that order.
    pub fn statuses(&self) -> impl Iterator<Item = &StatusState> {
        self.statuses.iter().filter(|status| status.event.started.is_some())
    }

    /// The same, to be marked as printed.
    pub fn statuses_mut(&mut self) -> impl Iterator<Item = &mut StatusState> {
        self.statuses.iter_mut().filter(|status| status.event.started.is_some())
    }

    pub(super) fn touch(&mut self, changes: u64, now: Timestamp) {
        if self.activity == 0 {
            self.waiting_since = Some(now);
        }
        self.activity += changes;
    }

    /// Takes a new state of the vertex; true where a person would see a difference.
    pub(super) fn apply(&mut self, event: &Vertex) -> bool {
        // A vertex may be announced again without its times; that must not undo what is known.
        if self.is_started() && event.started.is_none() {
            return false;
        }
        let changed = event.started.is_some()
            && (self.name != event.name
                || self.started != event.started
                || (event.completed.is_some() && self.completed != event.completed)
                || self.cached != event.cached
                || self.error != event.error);
        self.name.clone_from(&event.name);
        self.cached = event.cached;
        self.error.clone_from(&event.error);
        self.started = event.started;
        self.completed = event.completed;
        if let Some(start) = event.started {
            self.by_start.insert(start, Interval { start, stop: event.completed });
            self.merged = intervals::merge(self.by_start.values().copied());
        }
        changed
    }

    /// Recomputes a group from its members; true where a person would see a difference.
    pub(super) fn apply_group(&mut self, group: &Group) -> bool {
        let mut changed = false;
        for member in group.members.values() {
            if let Some(interval) = member.interval {
                changed |= self.by_start.insert(interval.start, interval) != Some(interval);
                self.hidden &= member.weak;
            }
        }
        let cached = group.members.values().all(|member| member.cached);
        let error = group.members.values().map(|member| &member.error).find(|error| !error.is_empty());
        let error = error.cloned().unwrap_or_default();
        if !error.is_empty() && self.error.is_empty() {
            self.hidden = false;
            self.error = error;
            changed = true;
        }
        changed |= self.cached != cached;
        self.cached = cached;
        self.merged = intervals::merge(self.by_start.values().copied());
        changed
    }

    pub(super) fn apply_status(&mut self, event: &VertexStatus) {
        match self.by_id.get(&event.id) {
            Some(&at) => {
                let started_now = self.statuses[at].event.started.is_none() && event.started.is_some();
                self.statuses[at] = StatusState { event: event.clone(), changed: true };
                if started_now {
                    self.move_last(at);
                }
            }
            None => {
                self.by_id.insert(event.id.clone(), self.statuses.len());
                self.statuses.push(StatusState { event: event.clone(), changed: true });
            }
        }
    }

    /// Parts are shown in the order in which they started, not in which they were announced.
    fn move_last(&mut self, at: usize) {
        self.statuses[at..].rotate_left(1);
        for (place, status) in self.statuses.iter().enumerate().skip(at) {
            self.by_id.insert(status.event.id.clone(), place);
        }
    }

    pub(super) fn apply_log(&mut self, event: &VertexLog) {
        self.terminal.write(&event.data);
        self.terminal_bytes = self.terminal_bytes.saturating_add(event.data.len());
        let seconds = self.merged.last().map_or(0.0, |last| event.timestamp.seconds_since(last.start));
        self.logs.push(&event.data, seconds);
    }
}
