//! Who is told how a transfer goes.

/// Hears about one transfer. Calls come from the task that does the work and must return at once.
pub trait Observer: Send + Sync {
    /// So many bytes of the whole are done. A retry that starts over begins at 0 again.
    fn progress(&self, done: u64, total: u64) {
        let _ = (done, total);
    }

    /// A line for the user, such as the reason of a retry; without a line break.
    fn message(&self, line: &str) {
        let _ = line;
    }
}

/// Nobody listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
