//! Trying again after errors that may pass.

use std::time::Duration;

use futures::future::BoxFuture;

use crate::error::RegistryError;
use crate::observer::Observer;

/// How often an operation is tried again before it has failed; each wait is twice as long as the one before.
const RETRIES_MAX: u32 = 3;

/// Counts the tries of one operation.
pub(crate) struct Backoff {
    first: Duration,
    retries: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration) -> Self {
        Self { first, retries: 0 }
    }

    /// Something went well: the next trouble is a new one.
    pub(crate) fn reset(&mut self) {
        self.retries = 0;
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
        if self.retries == RETRIES_MAX {
            return Err(error);
        }
        let wait = self.first * 2u32.pow(self.retries);
        self.retries += 1;
        observer.message(&format!("retrying in {wait:?}"));
        tracing::debug!(%error, ?wait, "retrying");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// Runs `operation` until it works, fails for good, or has failed too often.
///
/// `operation` gives boxed futures: with async closures the compiler can't see that the whole may move between threads.
pub(crate) async fn with_retries<'a, T>(
    first_wait: Duration,
    observer: &dyn Observer,
    operation: impl Fn() -> BoxFuture<'a, Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    let mut backoff = Backoff::new(first_wait);
    loop {
        match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => backoff.wait(error, observer).await?,
        }
    }
}
