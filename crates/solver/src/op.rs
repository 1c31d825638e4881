//! What the solver needs to know about an operation.

use crate::{Digest, OpContext};
use futures::future::BoxFuture;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// An operation of a vertex. Methods may be called again after they failed or were cancelled, never twice at
/// the same time for one vertex.
pub trait Op: Send + Sync + Sized + 'static {
    /// A result: a handle which keeps what it names alive, so that dropping the last clone releases it.
    type Output: Clone + Send + Sync + 'static;
    /// Why an op failed.
    type Error: std::error::Error + Send + Sync + 'static;
    /// What a job brings along for its ops, such as the ids of its sessions.
    type JobContext: Send + Sync + 'static;

    /// How the op is cached. Ops without inputs may have several pages (say, a tag and the digest it stands
    /// for), asked for in order from 0 until a record is found or [`CacheMap::done`]; others have one.
    ///
    /// The future is dropped when nobody wants the answer any more.
    fn cache_map(
        &self,
        page: usize,
        cx: &OpContext<Self>,
    ) -> impl Future<Output = Result<CacheMap<Self>, Self::Error>> + Send;

    /// Runs the op and gives all its outputs.
    ///
    /// When nobody wants the result any more, [`OpContext::cancelled`] fires, and the future is dropped if
    /// [`Op::drop_on_cancel`] says so, otherwise polled until it ends, which must then be soon.
    fn execute(
        &self,
        inputs: Vec<Self::Output>,
        cx: &OpContext<Self>,
    ) -> impl Future<Output = Result<Vec<Self::Output>, Self::Error>> + Send;

    /// Whether a cancelled [`Op::execute`] may simply be dropped. False for ops which have to end in order
    /// (kill a container, wait for it) and watch the token.
    fn drop_on_cancel(&self) -> bool {
        true
    }

    /// Limits how many ops run at once: one permit is held while [`Op::execute`] runs.
    fn semaphore(&self) -> Option<Arc<Semaphore>> {
        None
    }
}

/// Digests the content of an input of an op; `None` if it has no content to go by.
pub type ContentKeyFn<O> = Arc<
    dyn Fn(<O as Op>::Output, OpContext<O>) -> BoxFuture<'static, Result<Option<Digest>, <O as Op>::Error>>
        + Send
        + Sync,
>;

/// Prepares an input before its content is digested or the op runs, say fetches what is still remote.
pub type PreprocessFn<O> = Arc<
    dyn Fn(<O as Op>::Output, OpContext<O>) -> BoxFuture<'static, Result<(), <O as Op>::Error>> + Send + Sync,
>;

/// How one input of an op enters its keys.
pub struct InputMap<O: Op> {
    /// Combined with the key of the input: which part of the input the op looks at. Not combined with
    /// content keys, which are computed from that part already.
    pub selector: Option<Digest>,
    /// Computes the content key; without one the input is known by its definition only.
    pub content_key: Option<ContentKeyFn<O>>,
    /// Runs on the input's result before `content_key` and before the op.
    pub preprocess: Option<PreprocessFn<O>>,
}

impl<O: Op> Default for InputMap<O> {
    fn default() -> Self {
        InputMap { selector: None, content_key: None, preprocess: None }
    }
}

impl<O: Op> Clone for InputMap<O> {
    fn clone(&self) -> Self {
        InputMap {
            selector: self.selector.clone(),
            content_key: self.content_key.clone(),
            preprocess: self.preprocess.clone(),
        }
    }
}

/// How an op is cached.
pub struct CacheMap<O: Op> {
    /// Digest of the operation without its inputs: for an image its manifest digest, for git a commit, for a
    /// command its definition. Ops with equal digests take the same number of inputs.
    pub digest: Digest,
    /// One for each input of the vertex. A missing rest counts as default.
    pub inputs: Vec<InputMap<O>>,
    /// No further page follows.
    pub done: bool,
}

impl<O: Op> CacheMap<O> {
    /// A single page with default inputs.
    pub fn new(digest: Digest) -> Self {
        CacheMap { digest, inputs: Vec::new(), done: true }
    }

    /// How input `index` is mapped.
    pub(crate) fn input(&self, index: usize) -> InputMap<O> {
        self.inputs.get(index).cloned().unwrap_or_default()
    }
}
