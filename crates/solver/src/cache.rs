//! A cache: a store of keys with the store of results that belongs to it.

use crate::{KeyStore, Op, ResultStore};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use std::future::Future;
use std::sync::Arc;

/// Keys with their results. The solver's own one is written to; others (imports) are only read.
pub struct Cache<O: Op> {
    /// Distinguishes caches: two with the same name count as one.
    pub name: Arc<str>,
    /// The keys.
    pub keys: Arc<dyn KeyStore>,
    /// The results.
    pub results: Arc<dyn ResultStore<O>>,
}

impl<O: Op> Cache<O> {
    /// A cache of that name.
    pub fn new(name: impl Into<Arc<str>>, keys: Arc<dyn KeyStore>, results: Arc<dyn ResultStore<O>>) -> Self {
        Cache { name: name.into(), keys, results }
    }
}

impl<O: Op> Clone for Cache<O> {
    fn clone(&self) -> Self {
        Cache { name: self.name.clone(), keys: self.keys.clone(), results: self.results.clone() }
    }
}

/// A cache that a build imports; it may still be on its way when the build starts.
pub struct CacheSource<O: Op> {
    pub(crate) name: Arc<str>,
    pub(crate) cache: Shared<BoxFuture<'static, Option<Cache<O>>>>,
}

impl<O: Op> Clone for CacheSource<O> {
    fn clone(&self) -> Self {
        CacheSource { name: self.name.clone(), cache: self.cache.clone() }
    }
}

impl<O: Op> CacheSource<O> {
    /// A cache that is there.
    pub fn ready(cache: Cache<O>) -> Self {
        let name = cache.name.clone();
        CacheSource { name, cache: futures::future::ready(Some(cache)).boxed().shared() }
    }

    /// A cache that comes to be with `future`, or does not (the import failed and was reported). The first
    /// lookup of a vertex waits for it.
    pub fn lazy(
        name: impl Into<Arc<str>>,
        future: impl Future<Output = Option<Cache<O>>> + Send + 'static,
    ) -> Self {
        CacheSource { name: name.into(), cache: future.boxed().shared() }
    }
}
