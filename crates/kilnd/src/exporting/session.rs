//! Exporters that the client chooses once the result is known, and its word about what they answered.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_frontend::Error;
use kiln_session::daemon::{self, Caller, SessionId};

use super::{Exporters, Plan, Source, of_export};
use crate::control::BuildRequest;
use crate::daemon::Daemon;

/// How long the client's session may take to appear.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

async fn caller(daemon: &Daemon, request: &BuildRequest) -> Result<Caller, Error> {
    let session = SessionId::new(&request.session);
    daemon.sessions.get(&session, SESSION_TIMEOUT).await.map_err(|error| Error::of(&error))
}

/// A client without this service chooses nothing and is told nothing.
fn unless_not_served<T: Default>(answer: Result<T, daemon::Error>) -> Result<T, Error> {
    let missing = |status: &tonic::Status| {
        matches!(status.code(), tonic::Code::Unavailable | tonic::Code::Unimplemented)
    };
    match answer {
        Err(daemon::Error::Unsupported(_)) => Ok(T::default()),
        Err(daemon::Error::Status(status)) if missing(&status) => Ok(T::default()),
        answer => answer.map_err(|error| Error::of(&error)),
    }
}

/// Adds what the client chooses for this result.
///
/// # Errors
/// An exporter that there is not, or options that it does not understand.
pub async fn choose(
    plan: &mut Plan,
    daemon: &Daemon,
    request: &BuildRequest,
    source: &Source,
) -> Result<(), Error> {
    if !request.session_exporter {
        return Ok(());
    }
    let ids = source.references().filter_map(|reference| reference.id()).map(|id| id.to_string()).collect();
    let chosen = caller(daemon, request).await?.find_exporters(source.metadata.clone(), ids).await;
    let exporters = Exporters { store: daemon.store.clone(), sessions: daemon.sessions.clone() };
    for asked in unless_not_served(chosen)? {
        let id = u32::try_from(plan.exporters.len()).unwrap_or(u32::MAX);
        plan.exporters.push(exporters.resolve(&asked.r#type, id, asked.attrs).map_err(of_export)?);
    }
    Ok(())
}

/// Tells the client what all exporters answered; it may still refuse.
///
/// # Errors
/// The client's.
pub async fn finish(
    daemon: &Daemon,
    request: &BuildRequest,
    response: &BTreeMap<String, String>,
) -> Result<(), Error> {
    if !request.session_exporter {
        return Ok(());
    }
    unless_not_served(caller(daemon, request).await?.finalize_export(response.clone()).await)
}
