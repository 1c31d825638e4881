//! What an op is asked: how it is cached, what its inputs hold, and to run.

use crate::active::{EdgeRef, Executed, VertexState, lock};
use crate::edge::chain;
use crate::inflight::entries;
use crate::stage::or_cancelled;
use crate::{
    CacheKey, CacheMap, CachedResult, Decision, KeyInput, Op, OpContext, SolveError, SolveErrorKind,
};
use futures::future::{BoxFuture, try_join_all};
use futures::{FutureExt, TryFutureExt};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

type Answer<O, V> = BoxFuture<'static, Result<V, SolveError<O>>>;

impl<O: Op> VertexState<O> {
    fn context(self: &Arc<Self>, cancel: &CancellationToken) -> OpContext<O> {
        OpContext { state: self.clone(), cancel: cancel.clone() }
    }

    /// A page of the op's cache map.
    pub(crate) fn cache_map(self: &Arc<Self>, page: usize) -> Answer<O, Arc<CacheMap<O>>> {
        let this = self.clone();
        async move {
            let stage = {
                let mut pages = lock(&this.pages);
                while pages.len() <= page {
                    pages.push(Arc::default());
                }
                pages[page].clone()
            };
            let epoch = this.epoch();
            stage.get(epoch, |cancel| this.ask_cache_map(page, cancel).boxed()).await
        }
        .boxed()
    }

    /// The pages of the cache map that have been asked for.
    pub(crate) fn known_pages(&self) -> Vec<Arc<CacheMap<O>>> {
        lock(&self.pages).iter().filter_map(|stage| stage.peek()).collect()
    }

    async fn ask_cache_map(
        self: Arc<Self>,
        page: usize,
        cancel: CancellationToken,
    ) -> Result<Arc<CacheMap<O>>, SolveError<O>> {
        // For a source this is work that people wait for: it asks a registry, say.
        let source = self.inputs.is_empty();
        if source {
            self.hub.started(false);
        }
        let cx = self.context(&cancel);
        let ask = async { self.vertex.op.cache_map(page, &cx).await.map_err(|error| self.op_failed(error)) };
        let answer = or_cancelled(&cancel, ask).await;
        if source {
            self.hub.completed(false, answer.as_ref().err().map(|error| chain(error)));
        }
        answer.map(Arc::new)
    }

    fn op_failed(&self, error: O::Error) -> SolveError<O> {
        self.blame(SolveErrorKind::Op(Arc::new(error)))
    }

    /// The content key of input `index`, for which it is solved and preprocessed. None if it has none.
    pub(crate) fn content(self: &Arc<Self>, index: usize) -> Answer<O, Option<Arc<CacheKey>>> {
        let this = self.clone();
        async move {
            let epoch = this.epoch();
            let state = this.clone();
            let start = |cancel: CancellationToken| {
                async move {
                    let work = state.ask_content(index, &cancel);
                    or_cancelled(&cancel, work).await
                }
                .boxed()
            };
            this.contents[index].get(epoch, start).await
        }
        .boxed()
    }

    async fn ask_content(
        self: &Arc<Self>,
        index: usize,
        cancel: &CancellationToken,
    ) -> Result<Option<Arc<CacheKey>>, SolveError<O>> {
        let map = self.cache_map(0).await?.input(index);
        let input = &self.inputs[index];
        let solved = input.result().await?;
        if let Some(preprocess) = map.preprocess {
            // Fetching an input is shown where people look for it: at the input.
            let cx = input.state.context(cancel);
            let done = preprocess(solved.output.clone(), cx).await;
            done.map_err(|error| self.content_failed(index, &solved, error, cancel))?;
        }
        let Some(content_key) = map.content_key else {
            return Ok(None);
        };
        let digest = content_key(solved.output.clone(), self.context(cancel)).await;
        let digest = digest.map_err(|error| self.content_failed(index, &solved, error, cancel))?;
        Ok(digest.map(|digest| Arc::new(CacheKey::content(digest))))
    }

    fn content_failed(
        &self,
        input: usize,
        solved: &CachedResult<O>,
        error: O::Error,
        cancel: &CancellationToken,
    ) -> SolveError<O> {
        if cancel.is_cancelled() {
            return SolveError::cancelled();
        }
        let (result, error) = (solved.output.clone(), Arc::new(error));
        self.hub.started(false);
        self.hub.completed(false, Some(chain(&*error)));
        self.blame(SolveErrorKind::ContentKey { input, result, error })
    }

    /// The outputs of the op, which runs unless it has run already.
    pub(crate) fn executed(self: &Arc<Self>) -> Answer<O, Arc<Executed<O>>> {
        let this = self.clone();
        async move {
            let epoch = this.epoch();
            let state = this.clone();
            this.executed.get(epoch, |cancel| state.run(cancel).boxed()).await
        }
        .boxed()
    }

    async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<Arc<Executed<O>>, SolveError<O>> {
        let (results, inputs) = or_cancelled(&cancel, self.gather()).await?;
        let digest = match self.known_pages().last() {
            Some(page) => page.digest.clone(),
            None => or_cancelled(&cancel, self.cache_map(0)).await?.digest.clone(),
        };
        let entries = entries(&digest, &inputs, &self.core.cache.name);
        if let Some(other) = self.core.inflight.find_or_enter(&self, entries) {
            return self.take_from(&other, inputs, &cancel).await;
        }
        let permit = match self.vertex.op.semaphore() {
            Some(semaphore) => {
                or_cancelled(&cancel, async { Ok(semaphore.acquire_owned().await.ok()) }).await?
            }
            None => None,
        };
        self.hub.started(false);
        let cx = self.context(&cancel);
        // On the heap, and not before it may run: what an op keeps while it works is large, and thousands of vertices may wait for a permit.
        let work = self.vertex.op.execute(results, &cx).map_err(|error| self.op_failed(error)).boxed();
        let done =
            if self.vertex.op.drop_on_cancel() { or_cancelled(&cancel, work).await } else { work.await };
        drop(permit);
        // What an op says about being cancelled is no failure of the vertex.
        let done = done.map_err(|error| if cancel.is_cancelled() { SolveError::cancelled() } else { error });
        self.hub.completed(false, done.as_ref().err().map(|error| chain(error)));
        Ok(Arc::new(Executed { outputs: done?, inputs }))
    }

    /// Solves all inputs, prepares them, and lists all the ways in which they are known now.
    async fn gather(self: &Arc<Self>) -> Result<(Vec<O::Output>, Vec<Vec<KeyInput>>), SolveError<O>> {
        if self.inputs.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let map = self.cache_map(0);
        let results = try_join_all(self.inputs.iter().map(EdgeRef::result));
        let contents = try_join_all((0..self.inputs.len()).map(|index| self.content_if_any(index)));
        let (map, results, contents) = futures::try_join!(map, results, contents)?;
        let ways = |(index, (result, content)): (usize, (&CachedResult<O>, Option<Arc<CacheKey>>))| {
            let selector = map.input(index).selector;
            let by_key = |key: &Arc<CacheKey>| KeyInput { key: key.clone(), selector: selector.clone() };
            let by_content = content.map(|key| KeyInput { key, selector: None });
            result.keys.iter().map(by_key).chain(by_content).collect()
        };
        let ways = results.iter().zip(contents).enumerate().map(ways).collect();
        Ok((results.into_iter().map(CachedResult::into_output).collect(), ways))
    }

    fn content_if_any(self: &Arc<Self>, index: usize) -> Answer<O, Option<Arc<CacheKey>>> {
        let this = self.clone();
        async move {
            let map = this.cache_map(0).await?.input(index);
            if map.content_key.is_none() && map.preprocess.is_none() {
                return Ok(None);
            }
            this.content(index).await
        }
        .boxed()
    }

    /// Takes the result of another vertex with the same keys, for which this one's jobs then wait as well.
    async fn take_from(
        self: &Arc<Self>,
        other: &Arc<Self>,
        inputs: Vec<Vec<KeyInput>>,
        cancel: &CancellationToken,
    ) -> Result<Arc<Executed<O>>, SolveError<O>> {
        self.hub.decision(Decision::SharedWith { vertex: other.vertex.digest.clone() });
        self.hub.started(false);
        other.hub.follow(&self.hub);
        let executed = or_cancelled(cancel, other.executed()).await;
        self.hub.completed(executed.is_ok(), executed.as_ref().err().map(|error| chain(error)));
        let outputs = executed?.outputs.clone();
        Ok(Arc::new(Executed { outputs, inputs }))
    }
}

impl<O: Op> EdgeRef<O> {
    /// Has the op run, and saves what it gave for this edge.
    pub(crate) async fn execute(&self) -> Result<CachedResult<O>, SolveError<O>> {
        let executed = self.state.executed().await?;
        let Some(output) = executed.outputs.get(self.output) else {
            let (output, outputs) = (self.output, executed.outputs.len());
            return Err(self.state.blame(SolveErrorKind::MissingOutput { output, outputs }));
        };
        let keys = self.save_executed(output, &executed.inputs).boxed().await?;
        Ok(self.solution(output.clone(), keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;

    /// Keeps much while it works.
    struct Large;

    impl Op for Large {
        type Output = ();
        type Error = std::io::Error;
        type JobContext = ();

        async fn cache_map(
            &self,
            _page: usize,
            _cx: &OpContext<Self>,
        ) -> Result<CacheMap<Self>, Self::Error> {
            Ok(CacheMap::new(Digest::new("sha256:aa")))
        }

        async fn execute(&self, _inputs: Vec<()>, _cx: &OpContext<Self>) -> Result<Vec<()>, Self::Error> {
            let held = std::hint::black_box([0_u8; 1 << 16]);
            tokio::task::yield_now().await;
            std::hint::black_box(&held);
            Ok(vec![()])
        }
    }

    fn size_of_future<A, B, F: Future>(_start: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_vertex_that_waits_does_not_hold_what_its_op_will_need() {
        assert!(size_of_future(VertexState::<Large>::run) < 1 << 13);
    }
}
