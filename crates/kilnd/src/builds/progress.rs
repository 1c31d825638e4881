//! What a build reports, kept so that a client that asks late sees it all, and handed to every client that asks.
//!
//! Events are kept in one list, and a subscriber is a place in that list. Those of vertices, of which there may be thousands, share their
//! texts with the solver and become wire messages only as they are sent; the others are turned into messages once, as they come. Of logs the
//! list holds at most [`LOG_BYTES_MAX`] and forgets the oldest first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use kiln_proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use kiln_proto::prost_types::Timestamp;
use kiln_solver::{Event, ProgressSink, VertexEvent};
use tokio::sync::Notify;

/// Log bytes that one build keeps for clients that ask late.
const LOG_BYTES_MAX: usize = 16 << 20;
/// Items that one answer carries at most: a message stays well below what peers accept.
const ITEMS_PER_ANSWER: usize = 1024;
/// Log bytes that one answer carries at most.
const LOG_BYTES_PER_ANSWER: usize = 2 << 20;

/// The progress of one build.
#[derive(Default)]
pub struct BuildProgress {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    /// How many items were forgotten: the place of the first one in the list.
    forgotten: usize,
    log_bytes: usize,
    closed: bool,
}

#[derive(Clone)]
enum Item {
    Vertex(Arc<VertexEvent>),
    Status(Arc<VertexStatus>),
    Log(Arc<VertexLog>),
    Warning(Arc<VertexWarning>),
    /// A log that was forgotten in the middle of the list.
    Nothing,
}

/// One client's place in the list.
pub struct Subscription {
    progress: Arc<BuildProgress>,
    next: usize,
}

impl BuildProgress {
    /// Starts to read from the beginning.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription { progress: self.clone(), next: 0 }
    }

    /// No more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_waiters();
    }

    fn push(&self, item: Item) {
        let mut state = self.lock();
        if let Item::Log(log) = &item {
            state.log_bytes += log.msg.len();
        }
        state.items.push_back(item);
        state.forget_old_logs();
        drop(state);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_old_logs(&mut self) {
        let mut at = 0;
        while self.log_bytes > LOG_BYTES_MAX && at < self.items.len() {
            if let Item::Log(log) = &self.items[at] {
                self.log_bytes -= log.msg.len();
                self.items[at] = Item::Nothing;
            }
            at += 1;
        }
        while matches!(self.items.front(), Some(Item::Nothing)) {
            self.items.pop_front();
            self.forgotten += 1;
        }
    }
}

impl Subscription {
    /// The next answer: all that came since the last one, up to a limit. `None` at the end of the build.
    pub async fn next(&mut self) -> Option<StatusResponse> {
        loop {
            let progress = self.progress.clone();
            let changed = progress.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = progress.lock();
                if let Some(answer) = self.take(&state) {
                    return Some(answer);
                }
                if state.closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    fn take(&mut self, state: &State) -> Option<StatusResponse> {
        let from = self.next.max(state.forgotten);
        let mut answer = StatusResponse::default();
        let mut log_bytes = 0;
        let mut taken = 0;
        for item in state.items.iter().skip(from - state.forgotten) {
            if taken == ITEMS_PER_ANSWER || log_bytes >= LOG_BYTES_PER_ANSWER {
                break;
            }
            taken += 1;
            match item {
                Item::Vertex(vertex) => answer.vertexes.push(to_vertex(vertex)),
                Item::Status(status) => answer.statuses.push(VertexStatus::clone(status)),
                Item::Log(log) => {
                    log_bytes += log.msg.len();
                    answer.logs.push(VertexLog::clone(log));
                }
                Item::Warning(warning) => answer.warnings.push(VertexWarning::clone(warning)),
                Item::Nothing => {}
            }
        }
        self.next = from + taken;
        (taken > 0).then_some(answer)
    }
}

impl ProgressSink for BuildProgress {
    fn event(&self, event: Event) {
        match event {
            Event::Vertex(vertex) => self.push(Item::Vertex(Arc::new(vertex))),
            Event::Status { vertex, status, time } => self.push(Item::Status(Arc::new(VertexStatus {
                id: status.id.to_string(),
                vertex: vertex.to_string(),
                name: status.name.to_string(),
                current: status.current,
                total: status.total,
                timestamp: Some(to_timestamp(time)),
                started: status.started.map(to_timestamp),
                completed: status.completed.map(to_timestamp),
            }))),
            Event::Log { vertex, log, time } => self.push(Item::Log(Arc::new(VertexLog {
                vertex: vertex.to_string(),
                timestamp: Some(to_timestamp(time)),
                stream: i64::from(log.stream),
                msg: log.data,
            }))),
            Event::Warning { vertex, warning } => {
                let place = warning
                    .location
                    .as_ref()
                    .and_then(|place| place.downcast_ref::<kiln_frontend::Warning>());
                self.push(Item::Warning(Arc::new(VertexWarning {
                    vertex: vertex.to_string(),
                    level: i64::from(warning.level),
                    short: warning.short,
                    detail: warning.detail,
                    url: warning.url,
                    info: place.and_then(|place| place.source.clone()),
                    ranges: place.map(|place| place.ranges.clone()).unwrap_or_default(),
                })));
            }
            Event::Decision { .. } => {}
        }
    }
}

fn to_vertex(vertex: &VertexEvent) -> Vertex {
    Vertex {
        digest: vertex.digest.to_string(),
        inputs: vertex.inputs.iter().map(ToString::to_string).collect(),
        name: vertex.name.to_string(),
        cached: vertex.cached,
        started: vertex.started.map(to_timestamp),
        completed: vertex.completed.map(to_timestamp),
        error: vertex.error.as_deref().unwrap_or_default().to_owned(),
        progress_group: vertex.progress_group.as_ref().map(|group| kiln_proto::pb::ProgressGroup {
            id: group.id.clone(),
            name: group.name.clone(),
            weak: group.weak,
        }),
    }
}

/// A time as the wire has it.
pub fn to_timestamp(time: SystemTime) -> Timestamp {
    Timestamp::from(time)
}

#[cfg(test)]
mod tests {
    use kiln_proto::bytes::Bytes;

    use super::*;

    fn log(progress: &BuildProgress, bytes: usize) {
        progress.push(Item::Log(Arc::new(VertexLog {
            msg: Bytes::from(vec![b'x'; bytes]),
            ..VertexLog::default()
        })));
    }

    #[tokio::test]
    async fn a_late_client_sees_all_and_then_the_end() {
        let progress = Arc::new(BuildProgress::default());
        log(&progress, 10);
        let mut early = progress.subscribe();
        assert_eq!(early.next().await.unwrap().logs.len(), 1);
        log(&progress, 10);
        progress.close();
        let mut late = progress.subscribe();
        assert_eq!(late.next().await.unwrap().logs.len(), 2);
        assert!(late.next().await.is_none());
        assert_eq!(early.next().await.unwrap().logs.len(), 1);
        assert!(early.next().await.is_none());
    }

    #[tokio::test]
    async fn logs_are_bounded_and_vertices_stay() {
        let progress = Arc::new(BuildProgress::default());
        progress.event(Event::Vertex(VertexEvent {
            digest: "sha256:aa".into(),
            inputs: Arc::from(["sha256:bb".into()]),
            name: "one".into(),
            started: None,
            completed: None,
            cached: true,
            error: None,
            progress_group: None,
        }));
        for _ in 0..40 {
            log(&progress, 1 << 20);
        }
        progress.close();
        assert!(progress.lock().log_bytes <= LOG_BYTES_MAX);
        let (mut vertices, mut logs) = (0, 0);
        let mut reader = progress.subscribe();
        while let Some(answer) = reader.next().await {
            for vertex in &answer.vertexes {
                assert_eq!((vertex.digest.as_str(), vertex.name.as_str()), ("sha256:aa", "one"));
                assert_eq!((vertex.inputs.as_slice(), vertex.cached), (&["sha256:bb".to_owned()][..], true));
            }
            vertices += answer.vertexes.len();
            logs += answer.logs.len();
        }
        assert_eq!((vertices, logs), (1, LOG_BYTES_MAX >> 20));
    }
}
