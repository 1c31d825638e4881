//! Exporters of a build: chosen before it runs, run after it, each shown as a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_export::{
    Attrs, ExportBuild, ExportError, Exported, Exporter, Exporters, Reporter, exporter_vertex,
};
use kiln_frontend::Error;
use kiln_session::daemon::{SessionCredentials, SessionGroup, SessionId};
use kiln_solver::{Job, ProgressSink};
use kiln_store::Ref;
use kiln_worker::VertexOp;
use tokio_util::sync::CancellationToken;

use crate::control::BuildRequest;
use crate::daemon::Daemon;
use crate::step;

/// What a build gives to its exporters.
pub type Source = kiln_export::source::Source<Ref>;

fn of_export(error: ExportError) -> Error {
    Error::of(&error)
}

fn all(daemon: &Daemon) -> Exporters {
    Exporters { store: daemon.store.clone(), sessions: daemon.sessions.clone() }
}

/// The exporters that a request names. What cannot be exported is refused before anything runs.
pub fn prepare(daemon: &Daemon, request: &BuildRequest) -> Result<Vec<Exporter>, Error> {
    let exporters = all(daemon);
    request
        .exporters
        .iter()
        .zip(0..)
        .map(|(asked, id)| {
            exporters.resolve(&asked.r#type, id, Attrs::from(asked.attrs.clone())).map_err(of_export)
        })
        .collect()
}

/// Runs the exporters, on a thread of its own: what they do is mostly bytes, and their futures cannot move between threads.
/// Dropping the future stops them.
///
/// # Errors
/// The first exporter's that failed.
pub async fn run(
    daemon: &Arc<Daemon>,
    request: &BuildRequest,
    job: &Job<VertexOp>,
    sink: Arc<dyn ProgressSink>,
    chosen: Vec<Exporter>,
    source: Source,
) -> Result<BTreeMap<String, String>, Error> {
    if chosen.is_empty() {
        return Ok(BTreeMap::new());
    }
    let stop = CancellationToken::new();
    let _stop_on_drop = stop.clone().drop_guard();
    let (daemon, request, job) = (daemon.clone(), request.clone(), job.clone());
    let runtime = tokio::runtime::Handle::current();
    let exporting = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                () = stop.cancelled() => Err(Error::cancelled()),
                done = export(&daemon, &request, &job, sink, &chosen, &source) => done,
            }
        })
    });
    exporting.await.unwrap_or_else(|error| Err(Error::of(&error)))
}

/// Runs the exporters one after the other, then what may be done once all have: sending images to registries.
async fn export(
    daemon: &Daemon,
    request: &BuildRequest,
    job: &Job<VertexOp>,
    sink: Arc<dyn ProgressSink>,
    chosen: &[Exporter],
    source: &Source,
) -> Result<BTreeMap<String, String>, Error> {
    let exporters = all(daemon);
    let group = SessionGroup::new([SessionId::new(&request.session)]);
    let credentials = Arc::new(SessionCredentials::new(daemon.sessions.clone(), group));
    let build = |vertex: kiln_solver::Digest| ExportBuild {
        session: SessionId::new(&request.session),
        registry: daemon.registry.client(credentials.clone()),
        reporter: Reporter::new(sink.clone(), vertex),
        inline_cache: None,
        compatibility_version: request.compatibility_version,
    };
    let mut response = BTreeMap::new();
    let mut unfinished: Vec<(&Exporter, Exported)> = Vec::new();
    for exporter in chosen {
        let vertex = exporter_vertex(&request.session, exporter.id());
        let build = build(vertex.clone());
        let work = async { exporter.export(&exporters, source, &build).await.map_err(of_export) };
        let exported = step::run_as(job, vertex, &exporter.name(), work).await?;
        response.extend(exported.response.clone());
        unfinished.push((exporter, exported));
    }
    for (exporter, exported) in unfinished.iter().filter(|(_, exported)| exported.needs_finalize()) {
        let vertex = exporter_vertex(&request.session, exporter.id());
        let build = build(vertex.clone());
        let work = async { exported.finalize(&exporters, &build).await.map_err(of_export) };
        step::run_as(job, vertex, &exporter.name(), work).await?;
    }
    Ok(response)
}
