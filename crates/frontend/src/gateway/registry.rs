//! Which build a call belongs to.

use super::forwarder::Forwarder;
use crate::{Bridge, Error};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Code;
use tonic::metadata::MetadataMap;

/// The metadata key in which clients name their build.
pub const BUILD_ID_KEY: &str = "buildkit-controlapi-buildid";

/// How long a call waits for its build: clients call at the same time as they start it.
const REGISTRATION_WAIT: Duration = Duration::from_secs(3);

/// The builds whose clients make them up themselves. Cheap to clone; the service is one of its clones, see
/// [`kiln_proto::frontend::llb_bridge_server::LlbBridgeServer`].
pub struct Gateway<B: Bridge>(Arc<Inner<B>>);

impl<B: Bridge> Clone for Gateway<B> {
    fn clone(&self) -> Self {
        Gateway(self.0.clone())
    }
}

struct Inner<B: Bridge> {
    /// The only build there is, whatever calls say.
    only: Option<Arc<Forwarder<B>>>,
    builds: Mutex<HashMap<String, Arc<Forwarder<B>>>>,
    /// Counts registrations.
    changed: watch::Sender<u64>,
}

impl<B: Bridge> Default for Gateway<B> {
    fn default() -> Self {
        Gateway::new(None)
    }
}

impl<B: Bridge> Gateway<B> {
    fn new(only: Option<Arc<Forwarder<B>>>) -> Self {
        Gateway(Arc::new(Inner { only, builds: Mutex::default(), changed: watch::Sender::new(0) }))
    }

    /// For a connection that belongs to one build.
    pub fn of(forwarder: Arc<Forwarder<B>>) -> Self {
        Gateway::new(Some(forwarder))
    }

    fn builds(&self) -> MutexGuard<'_, HashMap<String, Arc<Forwarder<B>>>> {
        self.0.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets calls that name `build_id` reach `forwarder` until what is returned is dropped.
    pub fn register(&self, build_id: &str, forwarder: Arc<Forwarder<B>>) -> Result<Registration<B>, Error> {
        let mut builds = self.builds();
        if builds.contains_key(build_id) {
            return Err(Error::new(Code::AlreadyExists, format!("build {build_id} exists")));
        }
        builds.insert(build_id.to_owned(), forwarder);
        drop(builds);
        self.0.changed.send_modify(|count| *count += 1);
        Ok(Registration { gateway: self.clone(), build_id: build_id.to_owned() })
    }

    /// The build that a call is about; waits a little for one that is only just starting.
    pub(super) async fn find(&self, metadata: &MetadataMap, call: &str) -> Result<Arc<Forwarder<B>>, Error> {
        if let Some(only) = &self.0.only {
            return Ok(only.clone());
        }
        let mut ids = metadata.get_all(BUILD_ID_KEY).iter();
        let id = match (ids.next().and_then(|id| id.to_str().ok()), ids.next()) {
            (Some(id), None) if !id.is_empty() => id.to_owned(),
            _ => return Err(Error::unknown(format!("forwarding {call}: no buildid found in context"))),
        };
        let mut changed = self.0.changed.subscribe();
        let found = async {
            loop {
                changed.mark_unchanged();
                if let Some(forwarder) = self.builds().get(&id).cloned() {
                    return Some(forwarder);
                }
                changed.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(REGISTRATION_WAIT, found).await.ok().flatten();
        found.ok_or_else(|| Error::not_found(format!("forwarding {call}: no such job {id}")))
    }
}

/// Keeps a build reachable.
pub struct Registration<B: Bridge> {
    gateway: Gateway<B>,
    build_id: String,
}

impl<B: Bridge> Drop for Registration<B> {
    fn drop(&mut self) {
        self.gateway.builds().remove(&self.build_id);
    }
}
