//! A vertex, as the solver runs it.

use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use kiln_llb::Op as Kind;
use kiln_oci::Platform;
use kiln_solver::{CacheMap, Digest, InputMap, Op, OpContext, PreprocessFn};
use kiln_store::Ref;
use tokio::sync::Semaphore;

use crate::Worker;
use crate::context::{BuildContext, sessions_of};
use crate::encode::{Encoder, Hash, digest_of};
use crate::error::{Error, Result};
use crate::ops;
use crate::source::{Source, SourcePin};

/// A vertex bound to the worker that runs it.
pub struct VertexOp {
    worker: Worker,
    vertex: Arc<kiln_llb::Vertex>,
    platform: Arc<Platform>,
    /// What a source found out about itself.
    source: Source,
}

impl std::fmt::Debug for VertexOp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VertexOp")
            .field("vertex", &self.vertex.digest)
            .field("name", &self.vertex.name)
            .finish()
    }
}

impl VertexOp {
    /// `platform` is the one that the vertex means.
    pub(crate) fn new(worker: Worker, vertex: Arc<kiln_llb::Vertex>, platform: Arc<Platform>) -> VertexOp {
        VertexOp { worker, vertex, platform, source: Source::default() }
    }

    /// What it does, with its inputs, metadata and locations.
    pub fn vertex(&self) -> &kiln_llb::Vertex {
        &self.vertex
    }

    /// What it runs on or is for.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// What a source turned out to be; `None` before that is known, and for other operations.
    pub fn pin(&self) -> Option<SourcePin> {
        self.source.pin()
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    async fn map(&self, page: usize, cx: &OpContext<Self>) -> Result<CacheMap<Self>> {
        let inputs = self.vertex.inputs.len();
        Ok(match &self.vertex.op {
            Kind::Source(op) => return ops::source::cache_map(self, op, page, cx).await,
            Kind::Exec(op) => {
                let keys = ops::keys::exec_inputs(op, inputs)?;
                self.keyed(ops::keys::exec(op, &self.platform), keys)
            }
            Kind::File(op) => self.keyed(ops::keys::file(op), ops::keys::file_inputs(op, inputs)),
            Kind::Merge(_) => plain("kiln.op.merge.v1", |encoder| {
                encoder.u64(inputs as u64);
            }),
            Kind::Diff(op) => plain("kiln.op.diff.v1", |encoder| {
                encoder.bool(op.lower.is_some()).bool(op.upper.is_some());
            }),
            Kind::Build(op) => plain("kiln.op.build.v1", |encoder| {
                encoder.list(op.inputs.iter(), |encoder, (name, input)| {
                    encoder.str(name).u64(*input as u64);
                });
                encoder.list(op.attrs.iter(), |encoder, (key, value)| {
                    encoder.str(key).str(value);
                });
            }),
            Kind::Passthrough(op) => plain("kiln.op.passthrough.v1", |encoder| {
                encoder.str(&op.id).list(op.outputs.iter(), |encoder, input| {
                    encoder.u64(*input as u64);
                });
            }),
        })
    }

    fn keyed(&self, digest: Hash, keys: Vec<ops::keys::InputKey>) -> CacheMap<Self> {
        let mut map = CacheMap::new(solver_digest(digest));
        map.inputs = keys
            .into_iter()
            .map(|key| {
                let worker = self.worker.clone();
                InputMap {
                    selector: key.selector.map(solver_digest),
                    content_key: key.content.map(|selectors| {
                        let selectors: Arc<[_]> = selectors.into();
                        let content: kiln_solver::ContentKeyFn<Self> = Arc::new(move |input: Ref, cx| {
                            let (worker, selectors) = (worker.clone(), selectors.clone());
                            let digest =
                                async move { worker.content_key(&input, &selectors, &cx).await.map(Some) };
                            Box::pin(digest) as BoxFuture<'static, _>
                        });
                        content
                    }),
                    preprocess: Some(self.unpack()),
                }
            })
            .collect();
        map
    }

    /// Fetches what an input still lacks.
    fn unpack(&self) -> PreprocessFn<Self> {
        let worker = self.worker.clone();
        Arc::new(move |input: Ref, cx: OpContext<Self>| {
            let worker = worker.clone();
            Box::pin(async move { worker.unpack(&input, &sessions_of(&cx), Some(&cx.progress())).await })
        })
    }
}

fn plain(tag: &str, write: impl FnOnce(&mut Encoder)) -> CacheMap<VertexOp> {
    let mut encoder = Encoder::new(tag);
    write(&mut encoder);
    CacheMap::new(solver_digest(encoder.finish()))
}

pub(crate) fn solver_digest(hash: Hash) -> Digest {
    Digest::new(digest_of(hash).as_str())
}

impl Op for VertexOp {
    type Output = Ref;
    type Error = Error;
    type JobContext = BuildContext;

    fn cache_map(
        &self,
        page: usize,
        cx: &OpContext<Self>,
    ) -> impl Future<Output = std::result::Result<CacheMap<Self>, Error>> + Send {
        self.map(page, cx)
    }

    async fn execute(&self, inputs: Vec<Ref>, cx: &OpContext<Self>) -> std::result::Result<Vec<Ref>, Error> {
        match &self.vertex.op {
            // The large ones on the heap: the others need not be as large.
            Kind::Source(op) => Ok(vec![Box::pin(ops::source::execute(self, op, cx)).await?]),
            Kind::Exec(op) => Box::pin(ops::exec::execute(self, op, &inputs, cx)).await,
            Kind::File(op) => ops::file::execute(self, op, inputs, cx).await,
            Kind::Merge(op) => Ok(vec![ops::graph::merge(self, op, &inputs).await?]),
            Kind::Diff(op) => Ok(vec![ops::graph::diff(self, op, &inputs, cx).await?]),
            Kind::Build(op) => Ok(vec![Box::pin(ops::graph::build(self, op, &inputs, cx)).await?]),
            Kind::Passthrough(op) => Ok(ops::graph::passthrough(op, &inputs)),
        }
    }

    /// A step's processes have to be killed and waited for; everything else cleans up behind itself when dropped.
    fn drop_on_cancel(&self) -> bool {
        !matches!(self.vertex.op, Kind::Exec(_))
    }

    fn semaphore(&self) -> Option<Arc<Semaphore>> {
        match &self.vertex.op {
            Kind::Source(_) | Kind::Exec(_) => self.worker.parallelism(),
            Kind::File(_) => Some(self.worker.parallelism().unwrap_or_else(|| self.worker.file_ops())),
            _ => None,
        }
    }
}
