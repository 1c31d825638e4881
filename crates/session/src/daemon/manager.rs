//! All open sessions, and the connection to the client of each.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use kiln_proto::control::BytesMessage;
use kiln_proto::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::Error;
use super::health::{self, Checks};
use crate::keys;
use crate::tunnel::{QUEUE_MESSAGES, Tunnel};

/// Methods that a client may announce; more are not listened to.
const METHODS_MAX: usize = 1024;

/// Id of a session, without the part that some clients put before a colon.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(String);

impl SessionId {
    pub fn new(text: &str) -> SessionId {
        SessionId(text.rsplit_once(':').map_or(text, |(_, id)| id).to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The open sessions of a daemon. Clones share them.
#[derive(Clone, Default)]
pub struct SessionManager(Arc<Inner>);

#[derive(Default)]
struct Inner {
    open: Mutex<HashMap<SessionId, Caller>>,
    changed: Notify,
}

/// One open session. Clones share its connection.
#[derive(Clone)]
pub struct Caller(Arc<Session>);

struct Session {
    id: SessionId,
    name: String,
    shared_key: String,
    /// Whether handles are worth asking for.
    gives_handles: AtomicBool,
    methods: HashSet<String>,
    channel: Channel,
    closed: CancellationToken,
}

/// Takes the session off the list when the client's call ends, however it ends.
struct Registration {
    inner: Arc<Inner>,
    id: SessionId,
    _close: DropGuard,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.inner.lock().remove(&self.id);
        self.inner.changed.notify_waiters();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Caller>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionManager {
    pub fn new() -> SessionManager {
        SessionManager::default()
    }

    /// Serves a `Control.Session` call: opens the session and gives what the call has to answer. The session lives as long as both
    /// the client's messages and the answer do.
    ///
    /// # Errors
    /// [`Error::NoId`], or [`Error::Taken`] when a session with that id is open.
    pub fn open(
        &self,
        metadata: &MetadataMap,
        incoming: impl Stream<Item = Result<BytesMessage, Status>> + Send + 'static,
    ) -> Result<impl Stream<Item = Result<BytesMessage, Status>> + Send + 'static, Error> {
        let text =
            |key| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let id = SessionId::new(&text(keys::SESSION_ID));
        if id.as_str().is_empty() {
            return Err(Error::NoId);
        }
        let methods = metadata.get_all(keys::METHOD).iter().take(METHODS_MAX);
        let methods = methods.filter_map(|value| Some(value.to_str().ok()?.to_ascii_lowercase())).collect();
        let closed = CancellationToken::new();
        let (send, receive) = mpsc::channel(QUEUE_MESSAGES);
        // The client's messages end the session when they end.
        let ended = closed.clone();
        let incoming = incoming
            .chain(futures::stream::once(async move { ended.cancel() }).filter_map(|()| async { None }));
        let tunnel = Tunnel::new(incoming, send);
        let caller = Caller(Arc::new(Session {
            id: id.clone(),
            name: text(keys::SESSION_NAME),
            shared_key: text(keys::SHARED_KEY),
            gives_handles: AtomicBool::new(text(keys::HANDLES) == "1"),
            methods,
            channel: channel(tunnel),
            closed: closed.clone(),
        }));
        {
            let mut open = self.0.lock();
            if open.contains_key(&id) {
                return Err(Error::Taken(id.to_string()));
            }
            open.insert(id.clone(), caller.clone());
        }
        self.0.changed.notify_waiters();
        health::watch(caller, Checks::from_header(&text(keys::HEALTH_TIMEOUT)));
        let registration = Registration { inner: self.0.clone(), id, _close: closed.clone().drop_guard() };
        let mut outgoing = ReceiverStream::new(receive);
        let outgoing = futures::stream::poll_fn(move |cx| {
            let _held = &registration;
            outgoing.poll_next_unpin(cx)
        });
        Ok(outgoing.map(Ok).take_until(async move { closed.cancelled().await }))
    }

    /// The session with this id, waiting for it for a while when it is not open yet.
    ///
    /// # Errors
    /// [`Error::NoSession`] when it does not open in time.
    pub async fn get(&self, id: &SessionId, wait: Duration) -> Result<Caller, Error> {
        tokio::time::timeout(wait, self.appear(id)).await.map_err(|_| Error::NoSession { id: id.to_string() })
    }

    async fn appear(&self, id: &SessionId) -> Caller {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(caller) = self.find(id) {
                return caller;
            }
            changed.await;
        }
    }

    /// The session with this id, when it is open.
    pub fn find(&self, id: &SessionId) -> Option<Caller> {
        self.0.lock().get(id).filter(|caller| !caller.is_closed()).cloned()
    }

    /// Every open session.
    pub fn all(&self) -> Vec<Caller> {
        self.0.lock().values().cloned().collect()
    }
}

impl Caller {
    pub fn id(&self) -> &SessionId {
        &self.0.id
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Equal for sessions whose local sources are the same folders; empty when the client gave none.
    pub fn shared_key(&self) -> &str {
        &self.0.shared_key
    }

    /// Whether the client answers a method, such as `/moby.filesync.v1.FileSync/DiffCopy`.
    pub fn supports(&self, method: &str) -> bool {
        self.0.methods.contains(&method.to_ascii_lowercase())
    }

    /// The connection, for a service's client.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the client does not answer `method`, [`Error::NoSession`] when it is gone.
    pub fn channel_for(&self, method: &'static str) -> Result<Channel, Error> {
        if self.is_closed() {
            return Err(Error::NoSession { id: self.0.id.to_string() });
        }
        if !self.supports(method) {
            return Err(Error::Unsupported(method));
        }
        Ok(self.channel())
    }

    /// Whether the client gives handles of the files that it is sent, as far as is known.
    pub fn gives_handles(&self) -> bool {
        self.0.gives_handles.load(Ordering::Relaxed)
    }

    pub(super) fn ask_for_no_more_handles(&self) {
        self.0.gives_handles.store(false, Ordering::Relaxed);
    }

    pub(super) fn channel(&self) -> Channel {
        self.0.channel.clone()
    }

    pub(super) fn close(&self) {
        self.0.closed.cancel();
    }

    pub fn is_closed(&self) -> bool {
        self.0.closed.is_cancelled()
    }

    /// Returns once the session has ended.
    pub async fn closed(&self) {
        self.0.closed.cancelled().await;
    }
}

/// A gRPC channel over a tunnel. It connects once: a lost session is not dialled again.
fn channel(tunnel: Tunnel<BytesMessage>) -> Channel {
    let tunnel = Arc::new(Mutex::new(Some(tunnel)));
    Endpoint::from_static("http://session")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector_lazy(service_fn(move |_| {
            let tunnel = tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move {
                tunnel.map(TokioIo::new).ok_or_else(|| {
                    std::io::Error::new(std::io::ErrorKind::NotConnected, "the session has ended")
                })
            }
        }))
}
