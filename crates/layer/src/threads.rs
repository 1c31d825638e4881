//! One budget of helper threads for all work on bytes in this process.
//!
//! Compressing and unpacking go faster with helpers, and must not multiply them when many layers are worked on at
//! once. Work asks for helpers, takes what is free (perhaps none) and never waits: with no helper everything is done
//! by the thread that asked. The bytes that come out never depend on how many there were.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many helper threads may run at once. Cheap to clone; clones share the budget.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<AtomicUsize>,
    width: usize,
}

/// Helpers taken from a [`Budget`]; dropping gives them back.
#[derive(Debug)]
pub struct Helpers {
    free: Arc<AtomicUsize>,
    count: usize,
}

impl Budget {
    /// A budget of so many helper threads.
    pub fn new(width: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(width)), width }
    }

    /// One helper a processor and one more: while a thread waits for the disk another can compute.
    pub fn for_host() -> Self {
        Self::new(std::thread::available_parallelism().map_or(2, usize::from) + 1)
    }

    /// How many helpers there are at most.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Takes up to `wanted` helpers, as many as are free now.
    pub fn take(&self, wanted: usize) -> Helpers {
        let mut count = 0;
        let _ = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
            count = wanted.min(free);
            Some(free - count)
        });
        Helpers { free: Arc::clone(&self.free), count }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::for_host()
    }
}

impl Helpers {
    /// How many were taken.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.free.fetch_add(self.count, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_is_free_and_takes_it_back() {
        let budget = Budget::new(3);
        let two = budget.take(2);
        let rest = budget.take(5);
        assert_eq!((two.count(), rest.count(), budget.take(1).count()), (2, 1, 0));
        drop(two);
        assert_eq!(budget.take(9).count(), 2);
    }
}
