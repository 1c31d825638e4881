//! Trying again after errors that may pass.

use std::time::Duration;

use crate::error::RegistryError;
use crate::observer::Observer;

/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The wait after which nothing is tried any more.
const LAST_WAIT: Duration = Duration::from_secs(8);

/// Counts the tries of one operation.
pub(crate) struct Backoff {
    wait: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { wait: FIRST_WAIT }
    }

    /// Something went well: the next trouble is a new one.
    pub(crate) fn reset(&mut self) {
        self.wait = FIRST_WAIT;
    }

    /// Waits if the error may pass and there are tries left, else gives it back.
    pub(crate) async fn wait(
        &mut self,
        error: RegistryError,
        observer: &dyn Observer,
    ) -> Result<(), RegistryError> {
        if !error.is_transient() {
            return Err(error);
        }
        observer.message(&format!("error: {error}"));
        if self.wait >= LAST_WAIT {
            return Err(error);
        }
        observer.message(&format!("retrying in {}s", self.wait.as_secs()));
        tracing::debug!(%error, wait_s = self.wait.as_secs(), "retrying");
        tokio::time::sleep(self.wait).await;
        self.wait *= 2;
        Ok(())
    }
}

/// Runs `operation` until it works, fails for good, or has failed too often.
pub(crate) async fn with_retries<T, F>(observer: &dyn Observer, mut operation: F) -> Result<T, RegistryError>
where
    F: AsyncFnMut() -> Result<T, RegistryError>,
{
    let mut backoff = Backoff::new();
    loop {
        match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => backoff.wait(error, observer).await?,
        }
    }
}
