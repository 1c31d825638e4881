//! How one edge is solved: its stages, each a shared computation (see the crate's text).

use crate::active::{EdgeRef, lock};
use crate::probe::{KeySet, Probe, source_key};
use crate::stage::{Stage, or_cancelled};
use crate::{
    Cache, CacheKey, CacheMap, CachedResult, Decision, KeyInput, MissReason, Op, OpContext, RecordRef,
    SolveError, StoreError,
};
use futures::FutureExt;
use futures::future::{BoxFuture, try_join, try_join_all};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

/// What is known about one output of a vertex.
pub(crate) struct EdgeState<O: Op> {
    fast: Stage<O, Arc<KeySet>>,
    search: Stage<O, Arc<KeySet>>,
    result: Stage<O, CachedResult<O>>,
    probe: Mutex<Probe>,
    /// Fires when it is clear that no key of this edge will be found before it runs.
    hopeless: CancellationToken,
}

impl<O: Op> EdgeState<O> {
    pub(crate) fn new(inputs: usize) -> Self {
        EdgeState {
            fast: Stage::default(),
            search: Stage::default(),
            result: Stage::default(),
            probe: Mutex::new(Probe::new(inputs)),
            hopeless: CancellationToken::new(),
        }
    }
}

impl<O: Op> EdgeState<O> {
    /// Whether a failure is kept here, or a result that `lost` names: then nothing of this edge is worth keeping.
    pub(crate) fn is_spoilt(&self, lost: &dyn Fn(&O::Output) -> bool) -> bool {
        let result = self.result.forget(|solved| lost(&solved.output));
        let search = self.search.forget(|_| false);
        let fast = self.fast.forget(|_| false);
        result || search || fast
    }
}

type Answer<O, V> = BoxFuture<'static, Result<V, SolveError<O>>>;

impl<O: Op> EdgeRef<O> {
    /// The keys that can be had without executing anything.
    pub(crate) fn fast(&self) -> Answer<O, Arc<KeySet>> {
        let (this, edge) = (self.clone(), self.state.edge(self.output));
        async move {
            // Once there is a result, its keys count: they may be newer than what was looked up.
            if let Some(keys) = this.result_keys() {
                return Ok(keys);
            }
            let epoch = this.state.epoch();
            let start = |cancel| async move { or_cancelled(&cancel, this.find_fast()).await }.boxed();
            edge.fast.get(epoch, start).await
        }
        .boxed()
    }

    /// The keys that can be had without executing the vertex itself; inputs are solved where their content
    /// has to be known. Where all hope is lost, this ends only when everything it began has ended, see
    /// `EdgeState::hopeless`: what it began is going to be wanted by whoever runs the vertex.
    pub(crate) fn search(&self) -> Answer<O, Arc<KeySet>> {
        let (this, edge) = (self.clone(), self.state.edge(self.output));
        async move {
            if let Some(keys) = this.result_keys() {
                return Ok(keys);
            }
            let epoch = this.state.epoch();
            let start = |cancel| async move { or_cancelled(&cancel, this.find_slow()).await }.boxed();
            edge.search.get(epoch, start).await
        }
        .boxed()
    }

    /// The result, loaded or made.
    pub(crate) fn result(&self) -> Answer<O, CachedResult<O>> {
        let (this, edge) = (self.clone(), self.state.edge(self.output));
        async move {
            let epoch = this.state.epoch();
            let start = |cancel: CancellationToken| {
                async move {
                    let work = this.solve(&cancel);
                    or_cancelled(&cancel, work).await
                }
                .boxed()
            };
            edge.result.get(epoch, start).await
        }
        .boxed()
    }

    /// The result if it is there.
    pub(crate) fn solved(&self) -> Option<CachedResult<O>> {
        self.state.edge(self.output).result.peek()
    }

    /// The keys of the result if it is there. Those of a vertex that ignores the cache are not for looking up:
    /// what uses it must not be found through it.
    fn result_keys(&self) -> Option<Arc<KeySet>> {
        if self.state.ignore_cache() {
            return None;
        }
        let solved = self.solved()?;
        Some(Arc::new(KeySet { keys: solved.keys.to_vec(), content: false }))
    }

    async fn find_fast(&self) -> Result<Arc<KeySet>, SolveError<O>> {
        let state = &self.state;
        if state.ignore_cache() {
            return Ok(KeySet::empty());
        }
        if state.inputs.is_empty() {
            return self.find_source().await;
        }
        let inputs = try_join_all(state.inputs.iter().map(EdgeRef::fast));
        let (map, inputs) = try_join(state.cache_map(0), inputs).await?;
        let caches = state.caches().await;
        for (index, keys) in inputs.iter().enumerate() {
            self.look_up(&caches, &map, index, &keys.keys)?;
        }
        Ok(self.collect(&caches, &map)?)
    }

    /// The keys of an op without inputs: page by page until one has a record.
    async fn find_source(&self) -> Result<Arc<KeySet>, SolveError<O>> {
        let mut keys = Vec::new();
        for page in 0.. {
            let map = self.state.cache_map(page).await?;
            let caches = self.state.caches().await;
            let key = source_key(&self.state, &caches, &map, self.output)?;
            let found = key.as_ref().is_some_and(|key| !key.records().is_empty());
            keys.extend(key.map(Arc::new));
            if found || map.done {
                break;
            }
        }
        Ok(Arc::new(KeySet { keys, content: false }))
    }

    async fn find_slow(&self) -> Result<Arc<KeySet>, SolveError<O>> {
        let (state, edge) = (&self.state, self.state.edge(self.output));
        if state.ignore_cache() {
            edge.hopeless.cancel();
            return Ok(KeySet::empty());
        }
        if state.inputs.is_empty() {
            return self.fast().await;
        }
        let inputs = 0..state.inputs.len();
        try_join_all(inputs.clone().map(|index| self.match_input(index).boxed())).await?;
        let (map, caches) = (state.cache_map(0).await?, state.caches().await);
        let keys = self.collect(&caches, &map)?;
        if keys.has_records() || edge.hopeless.is_cancelled() {
            return Ok(keys);
        }
        // Each input is known together with this op, yet there is no result: perhaps other keys have one.
        let more = |index: usize| {
            let (map, caches) = (&map, &caches);
            async move {
                let keys = state.inputs[index].search().await?;
                self.look_up(caches, map, index, &keys.keys)?;
                Ok::<_, SolveError<O>>(())
            }
            .boxed()
        };
        try_join_all(inputs.clone().map(more)).await?;
        let keys = self.collect(&caches, &map)?;
        if keys.has_records() {
            return Ok(keys);
        }
        let by_content = |index: usize| self.match_content(&caches, &map, index).boxed();
        let untried: Vec<usize> = {
            let probe = lock(&edge.probe);
            inputs.filter(|index| !probe.content_tried(*index)).collect()
        };
        try_join_all(untried.into_iter().map(by_content)).await?;
        Ok(self.collect(&caches, &map)?)
    }

    /// Finds keys by way of one input, going only as far as it takes to find any.
    async fn match_input(&self, index: usize) -> Result<(), SolveError<O>> {
        let (state, edge) = (&self.state, self.state.edge(self.output));
        let input = &state.inputs[index];
        let (map, keys) = try_join(state.cache_map(0), input.fast()).await?;
        let caches = state.caches().await;
        if self.look_up(&caches, &map, index, &keys.keys)? {
            return Ok(());
        }
        let hopeless = input.state.edge(input.output).hopeless.clone();
        let mut search = input.search();
        let found = tokio::select! {
            biased;
            keys = &mut search => Some(keys?),
            () = hopeless.cancelled() => None,
        };
        let searched = found.is_some();
        let matched = match found {
            Some(keys) => self.look_up(&caches, &map, index, &keys.keys)?,
            None => false,
        };
        if !matched && !self.match_content(&caches, &map, index).await? {
            edge.hopeless.cancel();
        }
        if !searched {
            // Keeps what the search began under way, until whoever runs the input has taken over.
            search.await?;
        }
        Ok(())
    }

    /// Solves an input and looks up its content. False if that leads nowhere, or there is no content to look at.
    async fn match_content(
        &self,
        caches: &[Cache<O>],
        map: &CacheMap<O>,
        index: usize,
    ) -> Result<bool, SolveError<O>> {
        let (state, edge) = (&self.state, self.state.edge(self.output));
        if map.input(index).content_key.is_none() {
            lock(&edge.probe).set_content_tried(index);
            return Ok(false);
        }
        let content = state.content(index).await?;
        let mut ways: Vec<KeyInput> = Vec::new();
        if let Some(solved) =
            state.inputs[index].solved().filter(|_| !state.inputs[index].state.ignore_cache())
        {
            let selector = map.input(index).selector;
            ways.extend(
                solved.keys.iter().map(|key| KeyInput { key: key.clone(), selector: selector.clone() }),
            );
        }
        ways.extend(content.map(|key| KeyInput { key, selector: None }));
        let mut probe = lock(&edge.probe);
        probe.set_content_tried(index);
        let found = probe.look_up(state, caches, map, self.output, index, ways)?;
        if found {
            probe.link_ways(&state.core.cache, map, self.output, index)?;
        }
        Ok(found)
    }

    fn look_up(
        &self,
        caches: &[Cache<O>],
        map: &CacheMap<O>,
        index: usize,
        keys: &[Arc<CacheKey>],
    ) -> Result<bool, StoreError> {
        let selector = map.input(index).selector;
        let ways = keys.iter().map(|key| KeyInput { key: key.clone(), selector: selector.clone() }).collect();
        let edge = self.state.edge(self.output);
        let mut probe = lock(&edge.probe);
        probe.look_up(&self.state, caches, map, self.output, index, ways)
    }

    fn collect(&self, caches: &[Cache<O>], map: &CacheMap<O>) -> Result<Arc<KeySet>, StoreError> {
        let edge = self.state.edge(self.output);
        lock(&edge.probe).collect(&self.state, caches, map, self.output)
    }

    async fn solve(&self, cancel: &CancellationToken) -> Result<CachedResult<O>, SolveError<O>> {
        let edge = self.state.edge(self.output);
        let mut search = self.search();
        let found = tokio::select! {
            biased;
            keys = &mut search => Some(keys?),
            () = edge.hopeless.cancelled() => None,
        };
        let mut failed = None;
        if let Some(keys) = &found {
            for (key, record) in keys.records() {
                // On the heap, as all that thousands of vertices have room for while they wait.
                match self.load(keys, &key, &record, cancel).boxed().await {
                    Ok(solved) => return Ok(solved),
                    Err(error) => failed = Some((record.record, error)),
                }
            }
        }
        let reason = match failed {
            Some((record, error)) => MissReason::LoadFailed { record, error: chain(&error) },
            None => self.miss(found.as_deref()).await?,
        };
        self.state.hub.decision(Decision::Miss(reason));
        let mut execute = self.execute().boxed();
        if found.is_none() {
            // The search goes on beside it, so that nothing it began is stopped and begun again.
            tokio::select! {
                biased;
                done = &mut execute => return done,
                searched = &mut search => { searched?; }
            }
        }
        execute.await
    }

    async fn miss(&self, found: Option<&KeySet>) -> Result<MissReason, SolveError<O>> {
        let (state, edge) = (&self.state, self.state.edge(self.output));
        let keys_known = found.is_some_and(|keys| !keys.keys.is_empty());
        if state.ignore_cache() {
            return Ok(MissReason::IgnoreCache);
        }
        if state.inputs.is_empty() && !keys_known {
            let digest = state.cache_map(0).await?.digest.clone();
            return Ok(MissReason::UnknownSource { digest });
        }
        Ok(lock(&edge.probe).miss(keys_known))
    }

    /// Loads a record found under `key`, and keeps it in the solver's own cache if it came from elsewhere.
    async fn load(
        &self,
        keys: &KeySet,
        key: &Arc<CacheKey>,
        record: &RecordRef,
        cancel: &CancellationToken,
    ) -> Result<CachedResult<O>, StoreError> {
        let state = &self.state;
        let caches = state.caches().await;
        let Some(cache) = caches.iter().find(|cache| cache.name == record.cache) else {
            return Err(StoreError::not_found(format!("cache {} is gone", record.cache)));
        };
        let cx = OpContext { state: state.clone(), cancel: cancel.clone() };
        let started = state.core.clock.now();
        let output = match cache.results.load(&record.record, &cx).await {
            Ok(output) => output,
            Err(error) => {
                tracing::debug!(vertex = %state.vertex.digest, record = %record.record, %error, "load failed");
                return Err(error);
            }
        };
        if cache.name != state.core.cache.name {
            self.save_loaded(key, &output, record.created).await?;
        }
        state.hub.decision(Decision::Hit {
            record: record.record.clone(),
            cache: record.cache.to_string(),
            content: keys.content,
        });
        state.hub.loaded(started);
        Ok(self.solution(output, keys.keys.clone()))
    }

    pub(crate) fn solution(&self, output: O::Output, keys: Vec<Arc<CacheKey>>) -> CachedResult<O> {
        CachedResult {
            output,
            keys: keys.into(),
            vertex: self.state.vertex.digest.clone(),
            index: self.output,
        }
    }
}

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
