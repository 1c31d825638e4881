//! Ends a daemon that nobody needs: one started for a user on demand goes when it was idle for long enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts what keeps the daemon busy: connections and builds.
#[derive(Clone, Default)]
pub struct Activity(Arc<Inner>);

#[derive(Default)]
struct Inner {
    busy: AtomicUsize,
    changed: Notify,
}

/// Something that keeps the daemon busy until this is dropped.
pub struct Busy(Arc<Inner>);

impl Activity {
    pub fn begin(&self) -> Busy {
        self.0.busy.fetch_add(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
        Busy(self.0.clone())
    }

    /// Returns once nothing has kept the daemon busy for `idle` without a break.
    pub async fn idle_for(&self, idle: Duration) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.0.busy.load(Ordering::SeqCst) > 0 {
                changed.await;
                continue;
            }
            if tokio::time::timeout(idle, changed).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_a_whole_stretch_of_quiet() {
        let activity = Activity::default();
        let begun = tokio::time::Instant::now();
        let busy = activity.begin();
        tokio::spawn({
            let activity = activity.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(30)).await;
                drop(busy);
                tokio::time::sleep(Duration::from_secs(5)).await;
                drop(activity.begin());
            }
        });
        activity.idle_for(Duration::from_secs(10)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(45));
    }
}
