//! Blocking work, bounded: what moves bytes runs here, never on the threads that serve sockets.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// Runs so many blocking jobs at once; more wait in line. Jobs must not wait for other jobs of the same pool.
#[derive(Clone, Debug)]
pub struct Pool {
    slots: Arc<Semaphore>,
    width: usize,
}

impl Pool {
    /// A pool that runs `width` jobs at once.
    pub fn new(width: usize) -> Self {
        let width = width.max(1);
        Self { slots: Arc::new(Semaphore::new(width)), width }
    }

    /// How many jobs run at once.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Runs `job` when a slot is free. Once begun it runs to its end, even if nobody waits any more.
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Error::Died)?;
        let work = move || {
            let _slot = slot;
            job()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Died)
    }
}
