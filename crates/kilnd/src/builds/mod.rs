//! The builds that run now, by the ref their clients gave them, and what each has reported.

mod progress;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub use progress::{BuildProgress, Subscription, to_timestamp};

/// How long a question about a build waits for that build to appear: clients ask for the status at the same time as they
/// ask for the build.
const APPEAR_TIMEOUT: Duration = Duration::from_secs(6);

/// All builds of this daemon.
#[derive(Default)]
pub struct Builds {
    running: Mutex<HashMap<String, Arc<BuildProgress>>>,
    changed: Notify,
}

/// Keeps a build in the list while it runs. Dropping it ends the build's progress and takes it off the list.
pub struct Running {
    builds: Arc<Builds>,
    id: String,
    progress: Arc<BuildProgress>,
}

impl Builds {
    /// Puts a build on the list; `None` when that ref is taken by a running one.
    pub fn start(self: &Arc<Self>, id: &str) -> Option<Running> {
        let progress = Arc::new(BuildProgress::default());
        {
            let mut running = self.lock();
            if running.contains_key(id) {
                return None;
            }
            running.insert(id.to_owned(), progress.clone());
        }
        self.changed.notify_waiters();
        Some(Running { builds: self.clone(), id: id.to_owned(), progress })
    }

    /// How many run.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// The progress of a build that runs now.
    pub fn find_now(&self, id: &str) -> Option<Arc<BuildProgress>> {
        self.lock().get(id).cloned()
    }

    /// The progress of a build, which may be about to start.
    pub async fn find(&self, id: &str) -> Option<Arc<BuildProgress>> {
        let appear = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(progress) = self.lock().get(id) {
                    return progress.clone();
                }
                changed.await;
            }
        };
        tokio::time::timeout(APPEAR_TIMEOUT, appear).await.ok()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<BuildProgress>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    pub fn progress(&self) -> &Arc<BuildProgress> {
        &self.progress
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.progress.close();
        self.builds.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_may_come_before_the_build() {
        let builds = Arc::new(Builds::default());
        let asking = tokio::spawn({
            let builds = builds.clone();
            async move { builds.find("a").await.is_some() }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let running = builds.start("a").unwrap();
        assert!(builds.start("a").is_none());
        assert!(asking.await.unwrap());
        drop(running);
        assert_eq!(builds.count(), 0);
        assert!(builds.find("a").await.is_none());
    }
}
