//! Several sessions that may each do: those of all the builds that wait for the same step.

use std::future::Future;
use std::time::Duration;

use super::{Caller, Error, SessionId, SessionManager};

/// How long a session that was announced may take to appear.
pub const APPEAR_TIMEOUT: Duration = Duration::from_secs(5);

/// Sessions, the preferred one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionGroup {
    ids: Vec<SessionId>,
}

impl SessionGroup {
    pub fn new(ids: impl IntoIterator<Item = SessionId>) -> SessionGroup {
        let mut group = SessionGroup::default();
        for id in ids {
            if !id.as_str().is_empty() && !group.ids.contains(&id) {
                group.ids.push(id);
            }
        }
        group
    }

    pub fn ids(&self) -> &[SessionId] {
        &self.ids
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Asks one session after the other until one gives an answer that is not merely about itself.
    ///
    /// # Errors
    /// The last session's error; [`Error::NoSessions`] when there is none to ask.
    pub async fn any<T, F>(
        &self,
        manager: &SessionManager,
        mut ask: impl FnMut(Caller) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = Error::NoSessions;
        for id in &self.ids {
            let answer = match manager.get(id, APPEAR_TIMEOUT).await {
                Ok(caller) => ask(caller).await,
                Err(error) => Err(error),
            };
            match answer {
                Err(error) if error.is_of_this_session_only() => last = error,
                answer => return answer,
            }
        }
        Err(last)
    }
}
