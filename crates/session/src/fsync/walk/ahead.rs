//! Directories that are looked into before their turn.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, available_parallelism};

use super::super::error::SyncError;
use super::super::filter::{DirMatch, Filter};
use super::look::{Dirs, Looker};
use super::names::Names;

/// Names that were found when helping threads are started: below that they cost more than they bring.
const NAMES_MUCH: usize = 512;

/// Threads beside the walking one, at most.
const HELPERS_MAX: usize = 3;

/// Names that were found ahead and not come to yet, at most (one directory may go beyond).
const NAMES_AHEAD_MAX: usize = 8192;

/// Names of a directory, and the directories among them, last first; none: it vanished.
type Found = Result<Option<(Names, Vec<Arc<Dir>>)>, SyncError>;

/// A directory whose turn will come.
pub(super) struct Dir {
    path: String,
    matched: DirMatch,
    state: Mutex<State>,
    found: Condvar,
}

enum State {
    Waiting,
    /// A helping thread looks into it.
    Looking,
    /// Apart: most directories wait, and there may be many.
    Found(Box<Found>),
    /// The walk has come to it.
    Over,
}

/// What is known of directories whose turn will come.
#[derive(Default)]
pub(super) struct Ahead {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Names that were found, all in all.
    names: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    /// The one whose turn comes next is last.
    dirs: Vec<Arc<Dir>>,
    /// Names that were found ahead.
    ahead: usize,
    helpers: usize,
    ended: bool,
}

/// Ends the helping threads.
pub(super) struct EndOnDrop<'a>(&'a Ahead);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.queue().ended = true;
        self.0.changed.notify_all();
    }
}

impl Ahead {
    pub(super) fn end_on_drop(&self) -> EndOnDrop<'_> {
        EndOnDrop(self)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the directories among so many names, and gives them back.
    pub(super) fn add(&self, names: usize, dirs: Dirs) -> Vec<Arc<Dir>> {
        self.names.fetch_add(names, Ordering::Relaxed);
        let dir = |(path, matched)| {
            Arc::new(Dir { path, matched, state: Mutex::new(State::Waiting), found: Condvar::new() })
        };
        let dirs: Vec<_> = dirs.into_iter().map(dir).collect();
        if !dirs.is_empty() {
            self.queue().dirs.extend(dirs.iter().cloned());
            self.changed.notify_all();
        }
        dirs
    }

    /// Starts helping threads, once, when there is enough to do for them.
    pub(super) fn spawn_where_much<'scope, 'env: 'scope>(
        &'env self,
        threads: &'scope Scope<'scope, 'env>,
        top: &'env Path,
        filter: &'env Filter,
    ) {
        if self.names.load(Ordering::Relaxed) < NAMES_MUCH || self.queue().helpers > 0 {
            return;
        }
        let count = available_parallelism().map_or(1, |cores| cores.get() - 1).clamp(1, HELPERS_MAX);
        self.queue().helpers = count;
        for _ in 0..count {
            threads.spawn(|| self.help(Looker::new(top, filter)));
        }
    }

    fn help(&self, mut looker: Looker<'_>) {
        while let Some(dir) = self.next() {
            let turn = Turn(&dir);
            let found = self.look(&dir, &mut looker);
            *dir.state() = State::Found(Box::new(found));
            drop(turn);
        }
    }

    /// The next directory to look into; none: the walk has ended.
    fn next(&self) -> Option<Arc<Dir>> {
        let mut queue = self.queue();
        loop {
            if queue.ended {
                return None;
            }
            if queue.ahead < NAMES_AHEAD_MAX
                && let Some(dir) = queue.dirs.pop()
            {
                let mut state = dir.state();
                if matches!(*state, State::Waiting) {
                    *state = State::Looking;
                    drop(state);
                    return Some(dir);
                }
                continue;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn look(&self, dir: &Dir, looker: &mut Looker<'_>) -> Found {
        let Some((names, dirs)) = looker.names(&dir.path, &dir.matched)? else { return Ok(None) };
        self.queue().ahead += names.len();
        let dirs = self.add(names.len(), dirs);
        Ok(Some((names, dirs)))
    }

    /// What is in the directory whose turn has come.
    pub(super) fn names(&self, dir: &Dir, looker: &mut Looker<'_>) -> Found {
        let mut state = dir.state();
        let found = loop {
            match std::mem::replace(&mut *state, State::Over) {
                State::Waiting => {
                    drop(state);
                    break self.look(dir, looker);
                }
                State::Looking => {
                    *state = State::Looking;
                    state = dir.found.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                State::Found(found) => break *found,
                State::Over => unreachable!("the walk comes to each directory once"),
            }
        };
        if let Ok(Some((names, _))) = &found {
            self.queue().ahead -= names.len();
            self.changed.notify_all();
        }
        found
    }
}

/// A helping thread's work on a directory. However it ends, the walk does not wait for ever.
struct Turn<'a>(&'a Dir);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if matches!(*state, State::Looking) {
            let error = SyncError::protocol("a thread that looks into directories panicked");
            *state = State::Found(Box::new(Err(error)));
        }
        drop(state);
        self.0.found.notify_all();
    }
}

impl Dir {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
