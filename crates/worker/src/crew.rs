//! Work on trees of files by several threads: jobs that make further jobs, done by whoever is free.
//!
//! Helpers come from the process-wide [`Budget`] and are asked for only when enough jobs wait: a small tree is done
//! by the calling thread alone. Jobs are taken last in, first out, which keeps the number of waiting ones small.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use kiln_layer::threads::Budget;

/// Waiting jobs from which on helpers pay off: starting a thread costs about as much as a handful of file calls.
const JOBS_FOR_HELPERS: usize = 8;

/// The jobs of one call of [`run`].
pub struct Queue<J, E> {
    state: Mutex<State<J, E>>,
    changed: Condvar,
}

struct State<J, E> {
    waiting: Vec<J>,
    running: usize,
    failed: Option<E>,
}

impl<J, E> Queue<J, E> {
    /// Adds a job; it is done before [`run`] returns, unless one fails.
    pub fn push(&self, job: J) {
        self.lock().waiting.push(job);
        self.changed.notify_one();
    }

    fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State<J, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` when there will be no more.
    fn take(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(job) = state.waiting.pop() {
                state.running += 1;
                return Some(job);
            }
            if state.running == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, handle: &impl Fn(J, &Queue<J, E>) -> Result<(), E>, mut after_each: impl FnMut()) {
        while let Some(job) = self.take() {
            let done = Finished { queue: self };
            if let Err(error) = handle(job, self) {
                self.lock().failed.get_or_insert(error);
            }
            drop(done);
            after_each();
        }
    }
}

/// Takes a job off the count also when it panics: the others must not wait for it for ever.
struct Finished<'a, J, E> {
    queue: &'a Queue<J, E>,
}

impl<J, E> Drop for Finished<'_, J, E> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.running -= 1;
        if (state.running == 0 && state.waiting.is_empty()) || state.failed.is_some() {
            self.queue.changed.notify_all();
        }
    }
}

/// Does `jobs` and all that they push. Returns when every one is done.
///
/// # Errors
/// The first failure; jobs that were not begun by then are dropped.
pub fn run<J: Send, E: Send>(
    budget: &Budget,
    jobs: Vec<J>,
    handle: impl Fn(J, &Queue<J, E>) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let queue = Queue {
        state: Mutex::new(State { waiting: jobs, running: 0, failed: None }),
        changed: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let mut helpers = None;
        let mut call_helpers = || {
            if helpers.is_none() && queue.waiting() >= JOBS_FOR_HELPERS {
                let taken = budget.take(budget.width());
                for _ in 0..taken.count() {
                    scope.spawn(|| queue.work(&handle, || {}));
                }
                helpers = Some(taken);
            }
        };
        call_helpers();
        queue.work(&handle, call_helpers);
    });
    match queue.state.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn does_every_job_and_their_jobs() {
        let done = AtomicUsize::new(0);
        let result: Result<(), ()> = run(&Budget::new(3), vec![4_u32; 10], |depth, queue| {
            done.fetch_add(1, Ordering::Relaxed);
            if depth > 0 {
                queue.push(depth - 1);
                queue.push(depth - 1);
            }
            Ok(())
        });
        assert_eq!((result, done.into_inner()), (Ok(()), 10 * 31));
    }

    #[test]
    fn stops_at_the_first_failure() {
        let done = AtomicUsize::new(0);
        let result = run(&Budget::new(2), (0..10_000).collect(), |job: u32, _| {
            done.fetch_add(1, Ordering::Relaxed);
            if job == 9_990 { Err(job) } else { Ok(()) }
        });
        assert_eq!(result, Err(9_990));
        assert!(done.into_inner() < 10_000);
    }

    #[test]
    fn works_without_helpers() {
        assert_eq!(run(&Budget::new(0), (0..100).collect(), |_: u32, _| Ok::<(), ()>(())), Ok(()));
    }
}
