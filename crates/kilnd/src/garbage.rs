//! Collects garbage: after builds, at most once a minute, rule by rule; and gives memory back that builds left.

use std::sync::Arc;
use std::time::Duration;

use kiln_store::{PruneOptions, Store};
use tokio::sync::Notify;

use crate::memory;
use crate::settings::GcPolicy;

/// Time between the end of a build and a collection: builds that follow each other share one.
const AFTER_BUILD: Duration = Duration::from_secs(1);
/// Time between two collections.
const PAUSE: Duration = Duration::from_secs(60);

/// Wakes the collector.
#[derive(Clone, Default)]
pub struct Garbage(Arc<Notify>);

impl Garbage {
    /// A build has ended.
    pub fn poke(&self) {
        self.0.notify_one();
    }

    /// Collects by these rules whenever it is woken, for as long as the daemon runs.
    pub async fn collect(self, store: Store, policies: Vec<GcPolicy>) {
        loop {
            self.0.notified().await;
            tokio::time::sleep(AFTER_BUILD).await;
            let (store, policies) = (store.clone(), policies.clone());
            let collect = move || {
                let freed = run(&store, &policies);
                memory::give_back();
                freed
            };
            let done = tokio::task::spawn_blocking(collect).await;
            match done {
                Ok(Ok(0)) => {}
                Ok(Ok(bytes)) => tracing::info!(bytes, "garbage was collected"),
                Ok(Err(error)) => tracing::warn!(%error, "garbage could not be collected"),
                Err(error) => tracing::error!(%error, "the garbage collector failed"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn run(store: &Store, policies: &[GcPolicy]) -> Result<i64, kiln_store::Error> {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut freed = 0;
    for policy in policies {
        let options = PruneOptions {
            filters: policy.filters.clone(),
            all: policy.all,
            keep_duration: policy.keep_duration,
            reserved_space: signed(policy.reserved_space),
            max_used_space: signed(policy.max_used_space),
            min_free_space: signed(policy.min_free_space),
        };
        store.prune(&options, &mut |record| freed += record.size)?;
    }
    Ok(freed)
}
