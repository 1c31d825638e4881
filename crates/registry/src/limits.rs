//! How many requests one host gets at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits by host. Documents have one place more than blobs, so that a manifest does not wait behind
/// layers.
pub(crate) struct Limits {
    blobs: usize,
    hosts: Mutex<HashMap<String, HostLimits>>,
}

#[derive(Clone)]
struct HostLimits {
    blobs: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// A place at a host, given back on drop.
pub(crate) struct Permit {
    _blob: Option<OwnedSemaphorePermit>,
    _any: OwnedSemaphorePermit,
}

impl Limits {
    pub(crate) fn new(blobs: usize) -> Self {
        Self { blobs: blobs.max(1), hosts: Mutex::default() }
    }

    /// Waits for a place at `host`.
    pub(crate) async fn acquire(&self, host: &str, document: bool) -> Permit {
        let limits = {
            let mut hosts = self.hosts.lock().expect("no panic while held");
            hosts
                .entry(host.to_owned())
                .or_insert_with(|| HostLimits {
                    blobs: Arc::new(Semaphore::new(self.blobs)),
                    all: Arc::new(Semaphore::new(self.blobs + 1)),
                })
                .clone()
        };
        // The narrower one first: who waits for it must not hold a place that documents could use.
        let blob = if document {
            None
        } else {
            Some(limits.blobs.acquire_owned().await.expect("the semaphore is never closed"))
        };
        let any = limits.all.acquire_owned().await.expect("the semaphore is never closed");
        Permit { _blob: blob, _any: any }
    }
}
