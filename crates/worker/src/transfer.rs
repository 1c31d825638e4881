//! Downloads as lines of progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use kiln_oci::{Descriptor, Digest};
use kiln_solver::{Progress, Status};
use kiln_store::{FetchEvent, FetchObserver};

/// Between two updates of one line.
const UPDATE_EVERY: Duration = Duration::from_millis(150);

/// Turns what happens to layers into status lines of a vertex.
pub struct Transfers {
    progress: Option<Progress>,
    lines: Mutex<HashMap<Digest, Line>>,
}

struct Line {
    started: SystemTime,
    shown: Option<Instant>,
    bytes: u64,
    extracting: Option<SystemTime>,
}

impl Transfers {
    pub fn new(progress: Option<Progress>) -> Transfers {
        Transfers { progress, lines: Mutex::default() }
    }
}

impl FetchObserver for Transfers {
    fn event(&self, descriptor: &Descriptor, event: FetchEvent<'_>) {
        let Some(progress) = &self.progress else { return };
        let now = progress.now();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let line = lines.entry(descriptor.digest.clone()).or_insert_with(|| Line {
            started: now,
            shown: None,
            bytes: 0,
            extracting: None,
        });
        let download = |line: &Line, completed| Status {
            id: descriptor.digest.as_str().into(),
            name: "downloading".into(),
            current: line.bytes.cast_signed(),
            total: descriptor.size.cast_signed(),
            started: Some(line.started),
            completed,
        };
        let extract = |started, completed| Status {
            id: format!("extracting {}", descriptor.digest).into(),
            name: "extract".into(),
            current: 0,
            total: 0,
            started: Some(started),
            completed,
        };
        match event {
            FetchEvent::Progress(bytes) => {
                line.bytes = bytes;
                if line.shown.is_none_or(|shown| shown.elapsed() >= UPDATE_EVERY) {
                    line.shown = Some(Instant::now());
                    progress.status(download(line, None));
                }
            }
            FetchEvent::Retry(reason) => {
                progress.log(
                    2,
                    format!("download of {} interrupted, trying again: {reason}\n", descriptor.digest),
                );
            }
            FetchEvent::Fetched => {
                line.bytes = descriptor.size;
                progress.status(download(line, Some(now)));
            }
            FetchEvent::Unpacking => {
                line.extracting = Some(now);
                progress.status(extract(now, None));
            }
            FetchEvent::Unpacked => {
                progress.status(extract(line.extracting.unwrap_or(line.started), Some(now)));
            }
        }
    }
}

/// A line for something that starts now and ends when this is dropped or [`Task::done`].
pub struct Task {
    progress: Progress,
    id: Arc<str>,
    action: Arc<str>,
    started: SystemTime,
    ended: bool,
}

impl Task {
    pub fn start(progress: &Progress, id: impl Into<Arc<str>>) -> Task {
        let id = id.into();
        Task::doing(progress, id.clone(), id)
    }

    /// The same where what is done has a name that tools know.
    pub fn doing(progress: &Progress, id: impl Into<Arc<str>>, action: impl Into<Arc<str>>) -> Task {
        let task = Task {
            progress: progress.clone(),
            id: id.into(),
            action: action.into(),
            started: progress.now(),
            ended: false,
        };
        task.update(0, 0, None);
        task
    }

    /// So much is done.
    pub fn at(&self, current: u64) {
        self.update(current, 0, None);
    }

    /// It has ended.
    pub fn done(mut self, current: u64) {
        self.ended = true;
        self.update(current, 0, Some(self.progress.now()));
    }

    fn update(&self, current: u64, total: u64, completed: Option<SystemTime>) {
        self.progress.status(Status {
            id: self.id.clone(),
            name: self.action.clone(),
            current: current.cast_signed(),
            total: total.cast_signed(),
            started: Some(self.started),
            completed,
        });
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.ended {
            self.update(0, 0, Some(self.progress.now()));
        }
    }
}
