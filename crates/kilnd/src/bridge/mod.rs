//! One build's bridge: what its frontend may ask, answered by the solver and the worker.

mod container;
mod errors;
mod imports;
mod meta;
mod promise;
mod sent;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use kiln_frontend::gateway::image::AllowedImages;
use kiln_frontend::{
    Bridge, Container, ContainerRequest, Error, FileRange, FrontendRequest, MetaRequest, Solution,
    SolveRequest, SourceMeta, Warning, WorkerInfo,
};
use kiln_proto::sourcepolicy::Policy;
use kiln_proto::{fsutil_types, pb};
use kiln_solver::{Event, Job};
use kiln_store::Ref;
use kiln_worker::{BuildContext, VertexOp, Worker};

use crate::policy::BuildPolicy;
pub use errors::of_worker;
pub use imports::Imports;
pub use meta::look_up as of_meta;
pub use promise::Promise;
pub use sent::Sent;
pub use trace::{Origins, Trace};

/// The built-in Dockerfile frontend.
const DOCKERFILE: &str = "dockerfile.v0";
/// The frontend that runs another one, which is named by its option [`SOURCE`].
const GATEWAY: &str = "gateway.v0";
const SOURCE: &str = "source";
/// Images whose work the built-in frontend does, whatever their tag: nothing is pulled for a `# syntax=` line.
const BUILT_IN_IMAGES: [&str; 3] = ["docker/dockerfile", "docker.io/docker/dockerfile", DOCKERFILE];

/// Which frontends this daemon runs.
#[derive(Debug, Clone, Copy)]
pub struct Frontends {
    pub dockerfile: bool,
    pub gateway: bool,
}

/// The bridge of one build, and the branch of its requests that asks. Clones are the same bridge.
#[derive(Clone)]
pub struct BuildBridge(Arc<Inner>, Arc<Trace>);

struct Inner {
    job: Job<VertexOp>,
    worker: Worker,
    context: Arc<BuildContext>,
    policy: BuildPolicy,
    session: String,
    build: String,
    frontends: Frontends,
    allowed: AllowedImages,
    imports: Arc<Imports>,
}

impl BuildBridge {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        job: Job<VertexOp>,
        worker: Worker,
        context: Arc<BuildContext>,
        policy: BuildPolicy,
        session: &str,
        build: &str,
        frontends: Frontends,
        allowed: AllowedImages,
        trace: Arc<Trace>,
        imports: Arc<Imports>,
    ) -> BuildBridge {
        let inner = Inner {
            job,
            worker,
            context,
            policy,
            session: session.to_owned(),
            build: build.to_owned(),
            frontends,
            allowed,
            imports,
        };
        BuildBridge(Arc::new(inner), trace)
    }

    /// Does something with the files of a result, which are fetched first: again if a cache that the result was to come from is damaged.
    async fn with_files<'a, T>(
        &'a self,
        reference: &'a Promise,
        work: impl Fn(Ref) -> BoxFuture<'a, kiln_worker::Result<T>> + Send + 'a,
    ) -> Result<T, Error> {
        loop {
            let generation = self.0.imports.generation();
            let result = reference.result().await?;
            let files = result.into_output();
            let worked = match self.0.worker.unpack(&files, self.0.context.sessions(), None).await {
                Ok(()) => work(files).await,
                Err(error) => Err(error),
            };
            match worked {
                Ok(done) => return Ok(done),
                Err(_) if self.0.imports.recover(generation) => {}
                Err(error) => return Err(of_worker(error)),
            }
        }
    }

    /// The same bridge for what the daemon itself wants, which is no part of any request.
    pub fn apart(&self) -> BuildBridge {
        BuildBridge(self.0.clone(), Trace::top(Origins::default(), &SolveRequest::default()))
    }

    /// Who asked for what so far.
    pub fn trace(&self) -> &Arc<Trace> {
        &self.1
    }

    /// The build, its sources judged by a request's own rules besides those of the build.
    fn judged_also_by(&self, policies: Vec<Policy>) -> Result<Arc<BuildContext>, Error> {
        if policies.is_empty() {
            return Ok(self.0.context.clone());
        }
        let policy = self.0.policy.and(policies)?;
        Ok(Arc::new(self.0.context.judged_by(Arc::new(policy))))
    }

    async fn run_frontend(&self, mut request: SolveRequest) -> Result<Solution<Promise>, Error> {
        let of_image = match request.frontend.as_str() {
            GATEWAY if self.0.frontends.gateway => {
                match request.frontend_opts.get(SOURCE).map(String::as_str) {
                    None | Some("") => return Err(Error::invalid("no source specified for gateway")),
                    Some(source) if is_built_in(source) => {
                        // What runs is the built-in one: that is what its provenance tells.
                        request.frontend_opts.remove(SOURCE);
                        DOCKERFILE.clone_into(&mut request.frontend);
                        false
                    }
                    Some(_) => true,
                }
            }
            DOCKERFILE if self.0.frontends.dockerfile => false,
            other => return Err(Error::not_found(format!("frontend {other} not found"))),
        };
        let branch = self.1.branch(&request);
        let bridge = BuildBridge(self.0.clone(), branch.clone());
        let request = self.frontend_request(request.frontend_opts, request.frontend_inputs);
        let solution = if of_image {
            kiln_frontend::gateway::image::run(&Arc::new(bridge), &request, &self.0.allowed).await?
        } else {
            kiln_frontend::dockerfile::build(&bridge, &request).await?
        };
        self.1.grow(branch);
        Ok(solution)
    }

    fn frontend_request(
        &self,
        opts: BTreeMap<String, String>,
        inputs: BTreeMap<String, pb::Definition>,
    ) -> FrontendRequest {
        FrontendRequest { opts, inputs, session_id: self.0.session.clone(), build_id: self.0.build.clone() }
    }
}

fn is_built_in(source: &str) -> bool {
    let name = source.split('@').next().unwrap_or_default();
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    BUILT_IN_IMAGES.contains(&name)
}

#[async_trait]
impl Bridge for BuildBridge {
    type Ref = Promise;

    fn workers(&self) -> Vec<WorkerInfo> {
        let worker = &self.0.worker;
        vec![WorkerInfo {
            id: worker.info().id.clone(),
            labels: worker.info().labels.clone(),
            platforms: worker.info().platforms.to_vec(),
        }]
    }

    async fn solve(&self, request: SolveRequest) -> Result<Solution<Promise>, Error> {
        if !request.frontend.is_empty() {
            if request.definition.is_some() {
                return Err(Error::invalid("cannot solve with both Definition and Frontend specified"));
            }
            let evaluate = request.evaluate;
            let solution = self.run_frontend(request).await?;
            if evaluate {
                futures::future::try_join_all(solution.all_refs().into_iter().map(Promise::result)).await?;
            }
            return Ok(solution);
        }
        let Some(definition) = request.definition.filter(|definition| !definition.def.is_empty()) else {
            return Ok(Solution::single(None));
        };
        let inner = &self.0;
        let context = self.judged_also_by(request.source_policies)?;
        let loaded = inner.worker.load(&definition, &context).await.map_err(of_worker)?;
        let options = inner.imports.options(&request.cache_imports)?;
        let promise = Promise::new(inner.job.clone(), definition, loaded, options, inner.imports.clone());
        if request.evaluate {
            promise.result().await?;
        }
        self.1.promised(&promise);
        Ok(Solution::single(Some(promise)))
    }

    fn definition(&self, reference: &Promise) -> pb::Definition {
        reference.definition().read()
    }

    async fn evaluate(&self, reference: &Promise) -> Result<(), Error> {
        self.with_files(reference, |_| Box::pin(async { Ok(()) })).await
    }

    async fn resolve_source_meta(
        &self,
        source: pb::SourceOp,
        mut request: MetaRequest,
    ) -> Result<SourceMeta, Error> {
        let inner = &self.0;
        let context = self.judged_also_by(std::mem::take(&mut request.source_policies))?;
        let platform = request.platform.clone();
        let found = meta::resolve(&inner.worker, &inner.job, &context, source, request).await?;
        self.1.looked_up(&found, platform.as_ref());
        Ok(found)
    }

    async fn read_file(
        &self,
        reference: &Promise,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes, Error> {
        self.with_files(reference, |result| {
            let range =
                range.map(|range| kiln_worker::FileRange { offset: range.offset, length: range.length });
            Box::pin(async move { self.0.worker.read_file(&result, path, range).await })
        })
        .await
    }

    async fn read_dir(
        &self,
        reference: &Promise,
        path: &str,
        include_pattern: &str,
    ) -> Result<Vec<fsutil_types::Stat>, Error> {
        self.with_files(reference, |result| {
            Box::pin(async move { self.0.worker.read_dir(&result, path, include_pattern).await })
        })
        .await
    }

    async fn stat_file(&self, reference: &Promise, path: &str) -> Result<fsutil_types::Stat, Error> {
        self.with_files(reference, |result| {
            Box::pin(async move { self.0.worker.stat_file(&result, path).await })
        })
        .await
    }

    async fn warn(&self, warning: Warning) -> Result<(), Error> {
        let vertex = kiln_solver::Digest::new(warning.vertex.as_str());
        let level = i32::try_from(warning.level).unwrap_or(i32::MAX);
        let shown = kiln_solver::Warning {
            level,
            short: warning.short.clone(),
            detail: warning.detail.clone(),
            url: warning.url.clone(),
            location: Some(Arc::new(warning)),
        };
        self.0.job.event(Event::Warning { vertex, warning: shown });
        Ok(())
    }

    async fn new_container(&self, request: ContainerRequest<Promise>) -> Result<Box<dyn Container>, Error> {
        container::start(&self.0.worker, &self.0.context, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::is_built_in;

    #[test]
    fn syntax_images_that_are_built_in() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1.7",
            "docker.io/docker/dockerfile:1@sha256:0",
            "dockerfile.v0",
        ] {
            assert!(is_built_in(name), "{name}");
        }
        for name in ["someone/dockerfile", "localhost:5000/docker/dockerfile", ""] {
            assert!(!is_built_in(name), "{name}");
        }
    }
}
