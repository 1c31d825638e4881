//! One build, from the request to the exporters' answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures::future::BoxFuture;
use kiln_export::provenance::BuildFacts;
use kiln_export::source::PlatformRef;
use kiln_export::verify::platform_warnings;
use kiln_frontend::gateway::{Forwarder, Registration};
use kiln_frontend::{Bridge, Error, Solution, SolveRequest};
use kiln_oci::Timestamp;
use kiln_proto::control::BuildHistoryRecord;
use kiln_session::daemon::{SessionGroup, SessionId};
use kiln_solver::{Event, Job, JobId, Warning};
use kiln_store::Blob;
use kiln_worker::{BuildContext, Entitlements, VertexOp};

use crate::attest::{self, Traced};
use crate::bridge::{BuildBridge, Imports, Promise, Trace};
use crate::builds::{Running, to_timestamp};
use crate::control::BuildRequest;
use crate::daemon::Daemon;
use crate::policy::BuildPolicy;
use crate::{exporting, history, memory, version};

/// Builds of so many vertices give their memory back when they end. It takes 22 ms for 2,000 vertices, a thirtieth of the processor time of
/// building them from the cache: small builds keep what they have.
const LARGE_VERTICES: usize = 500;

/// Runs a build and gives what its exporters answered.
///
/// Dropping the future, as happens when the client goes, cancels what no other build wants.
///
/// # Errors
/// What failed, with the details that clients show.
pub async fn run(daemon: &Arc<Daemon>, request: BuildRequest) -> Result<BTreeMap<String, String>, Error> {
    let running = daemon
        .builds
        .start(&request.id)
        .ok_or_else(|| Error::new(tonic::Code::AlreadyExists, format!("job ID {} exists", request.id)))?;
    let mut made = Made::default();
    if request.internal {
        let done = build(daemon, &request, &running, &mut made).await;
        made.close().await;
        return done;
    }
    let mut remembered =
        Remembered { daemon: daemon.clone(), record: Some(history::new_record(&request)), running };
    daemon.history.started(remembered.record());
    let done = build(daemon, &request, &remembered.running, &mut made).await;
    made.close().await;
    let large = made.vertices >= LARGE_VERTICES;
    if large {
        // What is told of the build takes as much memory as its graph did. Where the allocator keeps the one, it adds to the other.
        let _ = tokio::task::spawn_blocking(memory::give_back).await;
    }
    let record = remembered.record();
    let _details = match &done {
        Ok(response) => {
            record.exporter_response = response.clone();
            None
        }
        Err(error) => history::add_error(&daemon.store, record, error).await,
    };
    let told = tell(daemon, &request, made, record).await;
    // The client may look into the record as soon as it has its answer.
    remembered.complete().await;
    if large {
        tokio::task::spawn_blocking(memory::give_back);
    }
    done.and_then(|response| told.map(|_| response))
}

/// What a build made, for its record, and what is to be closed behind it.
#[derive(Default)]
struct Made {
    reachable: Option<Reachable>,
    traced: Option<Traced>,
    /// How many vertices the job had.
    vertices: usize,
    /// By the numbers of the exporters.
    images: BTreeMap<i64, kiln_oci::Descriptor>,
}

impl Made {
    /// Ends what the client may still have had going.
    async fn close(&mut self) {
        if let Some(reachable) = self.reachable.take() {
            reachable.forwarder.close().await;
        }
    }
}

/// Lets the client that builds by itself reach its results until the build ends: it may look at them to choose exporters.
struct Reachable {
    forwarder: Arc<Forwarder<BuildBridge>>,
    _registration: Registration<BuildBridge>,
}

/// Puts into a record what was made, and how.
async fn tell(
    daemon: &Arc<Daemon>,
    request: &BuildRequest,
    made: Made,
    record: &mut BuildHistoryRecord,
) -> Result<Vec<Blob>, Error> {
    for (id, image) in made.images {
        history::add_image(record, id, &image);
    }
    let Some(traced) = made.traced else { return Ok(Vec::new()) };
    let builder_id = request.attestations.provenance.as_ref().map_or("", |options| &options.builder_id);
    let mut kept = Vec::new();
    for statement in traced.for_history(builder_id).await? {
        kept.push(history::add_statement(&daemon.store, record, statement).await?);
    }
    Ok(kept)
}

/// Keeps the record of a build however it ends: a client that goes drops the build in the middle.
struct Remembered {
    daemon: Arc<Daemon>,
    record: Option<BuildHistoryRecord>,
    running: Running,
}

impl Remembered {
    fn record(&mut self) -> &mut BuildHistoryRecord {
        self.record.get_or_insert_default()
    }

    /// Ends the record and waits until it is kept.
    async fn complete(mut self) {
        if let Some(completing) = self.completing() {
            // It goes on if the client goes while waiting.
            let _ = completing.await;
        }
    }

    fn completing(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let mut record = self.record.take()?;
        record.completed_at = Some(to_timestamp(SystemTime::now()));
        self.running.progress().close();
        let (daemon, progress) = (self.daemon.clone(), self.running.progress().subscribe());
        Some(tokio::spawn(async move { daemon.history.completed(&daemon.store, record, progress).await }))
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        self.completing();
    }
}

async fn build(
    daemon: &Arc<Daemon>,
    request: &BuildRequest,
    running: &Running,
    made: &mut Made,
) -> Result<BTreeMap<String, String>, Error> {
    // What cannot be exported is refused before anything runs.
    let mut plan = exporting::prepare(daemon, request)?;
    let (context, policy) = context(daemon, request)?;
    let context = Arc::new(context);
    let progress = running.progress().clone();
    let job: Job<VertexOp> =
        daemon.solver.new_job(JobId::new(request.id.as_str()), context.clone(), progress.clone());
    let asked = SolveRequest {
        definition: request.definition.clone(),
        frontend: request.frontend.clone(),
        frontend_opts: request.frontend_opts.clone(),
        frontend_inputs: request.frontend_inputs.clone(),
        cache_imports: request.cache_imports.clone(),
        source_policies: Vec::new(),
        evaluate: false,
    };
    let trace = Closing(Trace::top(daemon.origins.clone(), &asked));
    let imports = Arc::new(Imports::new(
        job.clone(),
        daemon.solver.clone(),
        daemon.worker.clone(),
        context.sessions().clone(),
        progress.clone(),
    ));
    let bridge = BuildBridge::new(
        job.clone(),
        daemon.worker.clone(),
        context,
        policy,
        &request.session,
        &request.id,
        daemon.frontends(),
        daemon.allowed_images.clone(),
        trace.0.clone(),
        imports.clone(),
    );
    let started = Timestamp::from(SystemTime::now());
    let mut solution = solve(daemon, request, asked, &bridge, made).await?;
    wait(&solution).await?;
    let (platforms, wanted) = (platforms(&solution)?, &request.attestations);
    if let Some(sbom) = &wanted.sbom {
        attest::scan(&bridge, request, sbom, &platforms, &mut solution).await?;
        wait(&solution).await?;
    }
    let facts = BuildFacts {
        invocation_id: request.id.clone(),
        started: Some(started),
        compatibility_version: request.compatibility_version,
        dockerfile_version: version::DOCKERFILE_VERSION.to_owned(),
        custom_env: daemon.settings.provenance_env.clone(),
        steps: None,
    };
    let mut first = true;
    let done = loop {
        let generation = imports.generation();
        let traced = Traced::new(&daemon.store, bridge.trace(), &solution, &platforms, facts.clone());
        let traced = made.traced.insert(traced);
        let results: exporting::Results = solution.clone().try_map(|promise| promise.solved())?;
        let mut source =
            exporting::Source::from(results.clone().try_map(|result| Ok::<_, Error>(result.into_output()))?);
        if let Some(options) = &wanted.provenance {
            traced.attach(&mut source, &platforms, options)?;
        }
        if std::mem::take(&mut first) {
            warn_of_platforms(request, &job, &source)?;
            exporting::choose(&mut plan, daemon, request, &source).await?;
        }
        let (sink, caches) = (progress.clone(), imports.caches());
        let run = exporting::Run { daemon, request, job: &job, sink, results: &results, imported: caches };
        match exporting::run(&plan, &source, &run).await {
            // An imported cache could not give what it had promised, and somebody wanted to read that only now.
            Err(error) if error.code() != tonic::Code::Cancelled && imports.recover(generation) => {
                tracing::debug!(%error, "the build is done again without a damaged cache");
                wait(&solution).await?;
            }
            done => break done,
        }
    };
    made.vertices = job.vertices().len();
    job.discard();
    let done = done?;
    made.images = done.images;
    Ok(done.response)
}

/// Tells where the result is for other platforms than those that were asked for.
fn warn_of_platforms(
    request: &BuildRequest,
    job: &Job<VertexOp>,
    source: &exporting::Source,
) -> Result<(), Error> {
    let asked = request.frontend_opts.get("platform").map(String::as_str);
    let warnings = platform_warnings(source, asked).map_err(|error| Error::of(&error))?;
    for text in warnings {
        let vertex = kiln_export::exporter_vertex(&request.session, 0);
        let shown =
            Warning { level: 0, short: text.into(), detail: Vec::new(), url: String::new(), location: None };
        job.event(Event::Warning { vertex, warning: shown });
    }
    Ok(())
}

/// Other builds are not told of this one's requests once it has ended.
struct Closing(Arc<Trace>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The platforms of a result, as exporters see them.
fn platforms(solution: &Solution<Promise>) -> Result<Vec<PlatformRef>, Error> {
    let facts =
        kiln_export::source::Source::<()> { metadata: solution.metadata.clone(), ..Default::default() };
    Ok(facts.platforms().map_err(|error| Error::of(&error))?.platforms)
}

/// The frontend's answer: from the client itself when it asks for no frontend and gives no graph.
async fn solve(
    daemon: &Arc<Daemon>,
    request: &BuildRequest,
    asked: SolveRequest,
    bridge: &BuildBridge,
    made: &mut Made,
) -> Result<Solution<Promise>, Error> {
    if request.frontend.is_empty() && request.definition.is_none() {
        let forwarder = Forwarder::new(Arc::new(bridge.clone()), request.frontend_inputs.clone());
        let registration = daemon.gateway.register(&request.id, forwarder.clone())?;
        made.reachable = Some(Reachable { _registration: registration, forwarder: forwarder.clone() });
        return forwarder.answer().await;
    }
    bridge.solve(asked).await
}

/// Waits for all promised results, which are solved at the same time.
async fn wait(solution: &Solution<Promise>) -> Result<(), Error> {
    let mut all: Vec<BoxFuture<'_, Result<_, Error>>> = Vec::new();
    for promise in solution.all_refs() {
        all.push(Box::pin(promise.result()));
    }
    futures::future::try_join_all(all).await?;
    Ok(())
}

/// What the build brings along, and who judges its sources.
fn context(daemon: &Daemon, request: &BuildRequest) -> Result<(BuildContext, BuildPolicy), Error> {
    let sessions = SessionGroup::new([SessionId::new(&request.session)]);
    let granted = |name: &str| request.entitlements.contains(name);
    let context = BuildContext::new(sessions).with_entitlements(Entitlements {
        network_host: granted("network.host"),
        security_insecure: granted("security.insecure"),
    });
    let mut policy = BuildPolicy::new(request.source_policy.clone())?;
    if !request.policy_session.is_empty() {
        policy =
            policy.and_session(daemon.sessions.clone(), &request.policy_session, &daemon.worker, &context);
    } else if request.source_policy.is_none() {
        return Ok((context, policy));
    }
    Ok((context.with_policy(Arc::new(policy.clone())), policy))
}
