//! What the solver needs from whoever keeps keys and results.
//!
//! Keys form a graph: a [`Link`] leads from the key of an input to the keys of the edges that used it. A
//! record (a stored result) hangs on one or more keys. An edge is found by following, from the keys of every
//! one of its inputs, the link with its own op digest, output, input index and selector; the keys that all
//! inputs lead to are its keys.

pub mod memory;

use crate::{Digest, Op, OpContext, StoreError};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The name of a key within one store. For roots and content it is [`crate::root_key`] in every store.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// From its text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        KeyId(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&Digest> for KeyId {
    fn from(digest: &Digest) -> Self {
        KeyId(digest.shared())
    }
}

/// The name of a stored result; given by the [`ResultStore`], unique within it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId(Arc<str>);

impl RecordId {
    /// From its text.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        RecordId(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a key was used as the input of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link {
    /// Which input of the op.
    pub input: usize,
    /// Which output of the op.
    pub output: usize,
    /// The op's cache-map digest.
    pub digest: Digest,
    /// Which part of the input the op looks at.
    pub selector: Option<Digest>,
}

/// A stored result hanging on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The result.
    pub id: RecordId,
    /// When it was made, in whole milliseconds (see [`whole_millis`]). Of several records the youngest is taken.
    pub created: SystemTime,
}

/// A time without what is finer than a millisecond. Stores keep no more, and what a build says about a record it has just made is
/// what a later one reads: exports of the two are equal.
pub fn whole_millis(time: SystemTime) -> SystemTime {
    let fraction = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.subsec_nanos() % 1_000_000,
        Err(_) => 0,
    };
    time - Duration::from_nanos(u64::from(fraction))
}

/// A link seen from its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlink {
    /// The key of the input.
    pub from: KeyId,
    /// How it was used.
    pub link: Link,
}

/// Keeps keys, links and which record hangs where.
///
/// All methods are called from async tasks and must be quick: a lookup in memory or in a local database.
/// Writes may be buffered, but are visible at once to every later call on the same object. Losing the last
/// writes in a crash is harmless (a step runs again); a record whose result is gone is not an error either,
/// the solver asks the [`ResultStore`] and releases it.
pub trait KeyStore: Send + Sync + 'static {
    /// Whether the key has a record, or a link away from it.
    fn exists(&self, key: &KeyId) -> Result<bool, StoreError>;

    /// The keys that `link` leads to from `key`, in a stable order.
    fn links(&self, key: &KeyId, link: &Link) -> Result<Vec<KeyId>, StoreError>;

    /// Adds links `(from, how, target)`; those that exist stay as they are. Unknown keys come to be.
    fn add_links(&self, links: &[(KeyId, Link, KeyId)]) -> Result<(), StoreError>;

    /// The records that hang on `key`.
    fn records(&self, key: &KeyId) -> Result<Vec<Record>, StoreError>;

    /// Hangs a record on `key`; the same record id again only renews its time.
    fn add_record(&self, key: &KeyId, record: &Record) -> Result<(), StoreError>;

    /// [`KeyStore::add_links`] and then [`KeyStore::add_record`], which a store may be able to do in one go.
    fn save(&self, links: &[(KeyId, Link, KeyId)], key: &KeyId, record: &Record) -> Result<(), StoreError> {
        self.add_links(links)?;
        self.add_record(key, record)
    }

    /// All keys on which the record hangs.
    fn keys_of_record(&self, record: &RecordId) -> Result<Vec<KeyId>, StoreError>;

    /// Takes the record off all its keys, and removes the keys which then have neither a record nor a link
    /// away from them, with the links to them, upwards as far as that goes.
    fn release(&self, record: &RecordId) -> Result<(), StoreError>;

    /// The links that lead to `key`.
    fn backlinks(&self, key: &KeyId) -> Result<Vec<Backlink>, StoreError>;

    /// Every record there is, each once.
    fn all_records(&self) -> Result<Vec<RecordId>, StoreError>;
}

/// Keeps results.
#[async_trait::async_trait]
pub trait ResultStore<O: Op>: Send + Sync + 'static {
    /// Makes the result findable later and names it. The same result gives the same name.
    async fn save(&self, output: &O::Output, created: SystemTime) -> Result<RecordId, StoreError>;

    /// Gets a result back; lazily where the store can. `cx` is that of the vertex which wants it.
    async fn load(&self, record: &RecordId, cx: &OpContext<O>) -> Result<O::Output, StoreError>;

    /// Whether `load` has a chance. Quick, like the methods of [`KeyStore`].
    fn exists(&self, record: &RecordId) -> bool;
}
