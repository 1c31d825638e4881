//! Exporters of a build, and exports of its cache: chosen before it runs, run after it, each shown as a step.

mod caches;
mod inline;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, try_join, try_join_all};
use kiln_export::{
    Attrs, ExportBuild, ExportError, Exported, Exporter, Exporters, InlineCache, Reporter, exporter_vertex,
};
use kiln_frontend::{Error, Solution};
use kiln_remotecache::ImportedCache;
use kiln_session::daemon::{SessionCredentials, SessionGroup, SessionId};
use kiln_solver::{CachedResult, Job, KeyStore, ProgressSink};
use kiln_store::Ref;
use kiln_worker::VertexOp;

use self::caches::CacheTarget;
pub use self::session::choose;
use crate::control::BuildRequest;
use crate::daemon::Daemon;
use crate::step;

/// What a build gives to its exporters.
pub type Source = kiln_export::source::Source<Ref>;

/// What a build gives to exports of its cache: the results with their keys.
pub type Results = Solution<CachedResult<VertexOp>>;

/// Before the names of facts that frontends tell clients.
const FRONTEND_PREFIX: &str = "frontend.";

fn of_export(error: ExportError) -> Error {
    Error::of(&error).hint(error.hint())
}

/// Everything that a request wants to have exported.
pub struct Plan {
    exporters: Vec<Exporter>,
    caches: Vec<CacheTarget>,
}

/// Reads what a request wants. What cannot be exported is refused before anything runs.
///
/// # Errors
/// What is not known, not supported or makes no sense.
pub fn prepare(daemon: &Daemon, request: &BuildRequest) -> Result<Plan, Error> {
    let all = Exporters { store: daemon.store.clone(), sessions: daemon.sessions.clone() };
    let mut plan = Plan { exporters: Vec::new(), caches: Vec::new() };
    for (asked, id) in request.exporters.iter().zip(0..) {
        let attrs = Attrs::from(asked.attrs.clone());
        plan.exporters.push(all.resolve(&asked.r#type, id, attrs).map_err(of_export)?);
    }
    for asked in &request.cache_exports {
        plan.caches.push(CacheTarget::read(asked)?);
    }
    Ok(plan)
}

/// A build that has come to its end, for its exports.
pub struct Run<'a> {
    pub daemon: &'a Daemon,
    pub request: &'a BuildRequest,
    pub job: &'a Job<VertexOp>,
    pub sink: Arc<dyn ProgressSink>,
    pub results: &'a Results,
    /// The caches it has looked into.
    pub imported: Vec<ImportedCache>,
}

impl Run<'_> {
    fn session(&self) -> SessionId {
        SessionId::new(&self.request.session)
    }

    /// Registries, with the client's credentials.
    fn registry(&self) -> kiln_registry::Client {
        let group = SessionGroup::new([self.session()]);
        self.daemon.registry.client(Arc::new(SessionCredentials::new(self.daemon.sessions.clone(), group)))
    }

    fn build(&self, vertex: kiln_solver::Digest, inline_cache: Option<Arc<dyn InlineCache>>) -> ExportBuild {
        ExportBuild {
            session: self.session(),
            registry: self.registry(),
            reporter: Reporter::new(self.sink.clone(), vertex),
            inline_cache,
            compatibility_version: self.request.compatibility_version,
        }
    }

    fn own_keys(&self) -> Arc<dyn KeyStore> {
        self.daemon.solver.cache().keys.clone()
    }

    fn inline_cache(&self, plan: &Plan) -> Option<Arc<dyn InlineCache>> {
        let inline = || inline::Inline {
            store: self.daemon.store.clone(),
            keys: self.own_keys(),
            registry: self.registry(),
            imported: self.imported.clone(),
            results: self.results.clone(),
        };
        caches::wants_inline(&plan.caches).then(|| Arc::new(inline()) as Arc<dyn InlineCache>)
    }
}

/// What became of a result.
pub struct Done {
    /// What the client is told.
    pub response: BTreeMap<String, String>,
    /// The images that were made, by the numbers of the exporters.
    pub images: BTreeMap<i64, kiln_oci::Descriptor>,
}

/// Runs the exporters at the same time; then, again at the same time, what may be done once all have: sending images to
/// registries, and exporting caches. Gives what the client is told. Dropping the future stops them.
///
/// # Errors
/// That of the first one that failed.
pub async fn run(plan: &Plan, source: &Source, run: &Run<'_>) -> Result<Done, Error> {
    let exporters = Exporters { store: run.daemon.store.clone(), sessions: run.daemon.sessions.clone() };
    let inline_cache = run.inline_cache(plan);
    // Lists and not mapped iterators: the compiler cannot see that futures of the latter may move between threads.
    let mut exporting: Vec<BoxFuture<'_, Result<Exported, Error>>> = Vec::new();
    for exporter in &plan.exporters {
        let (exporters, inline_cache) = (&exporters, inline_cache.clone());
        exporting.push(Box::pin(async move {
            let vertex = exporter_vertex(&run.request.session, exporter.id());
            let build = run.build(vertex.clone(), inline_cache);
            let work = async { exporter.export(exporters, source, &build).await.map_err(of_export) };
            step::run_as(run.job, vertex, &exporter.name(), work).await
        }));
    }
    let exported = try_join_all(exporting).await?;

    let mut finishing: Vec<BoxFuture<'_, Result<(), Error>>> = Vec::new();
    for (exporter, exported) in plan.exporters.iter().zip(&exported) {
        if !exported.needs_finalize() {
            continue;
        }
        let exporters = &exporters;
        finishing.push(Box::pin(async move {
            let vertex = exporter_vertex(&run.request.session, exporter.id());
            let build = run.build(vertex.clone(), None);
            let work = async { exported.finalize(exporters, &build).await.map_err(of_export) };
            step::run_as(run.job, vertex, &exporter.name(), work).await
        }));
    }
    let (_, of_caches) = try_join(try_join_all(finishing), caches::export(&plan.caches, run)).await?;

    let mut response = BTreeMap::new();
    for one in &exported {
        response.extend(one.response.clone());
    }
    for (key, value) in source.metadata.iter().filter(|(key, _)| key.starts_with(FRONTEND_PREFIX)) {
        response.insert(key.clone(), String::from_utf8_lossy(value).into_owned());
    }
    response.extend(of_caches);
    session::finish(run.daemon, run.request, &response).await?;
    let images = plan.exporters.iter().zip(exported);
    let images = images.filter_map(|(exporter, one)| Some((exporter.id().into(), one.descriptor?)));
    Ok(Done { response, images: images.collect() })
}
