//! One build, from the request to the exporters' answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures::future::BoxFuture;
use kiln_frontend::gateway::Forwarder;
use kiln_frontend::{Bridge, Error, Solution, SolveRequest};
use kiln_session::daemon::{SessionGroup, SessionId};
use kiln_solver::{Job, JobId};
use kiln_store::Ref;
use kiln_worker::{BuildContext, Entitlements, VertexOp};

use crate::bridge::{BuildBridge, Promise};
use crate::builds::{Running, to_timestamp};
use crate::control::BuildRequest;
use crate::daemon::Daemon;
use crate::{exporting, history};

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
    if request.internal {
        return build(daemon, &request, &running).await;
    }
    let mut remembered =
        Remembered { daemon: daemon.clone(), record: Some(history::new_record(&request)), running };
    daemon.history.started(remembered.record());
    let done = build(daemon, &request, &remembered.running).await;
    match &done {
        Ok(response) => remembered.record().exporter_response = response.clone(),
        Err(error) => remembered.record().error = Some(error.to_rpc()),
    }
    done
}

/// Keeps the record of a build however it ends: a client that goes drops the build in the middle.
struct Remembered {
    daemon: Arc<Daemon>,
    record: Option<kiln_proto::control::BuildHistoryRecord>,
    running: Running,
}

impl Remembered {
    fn record(&mut self) -> &mut kiln_proto::control::BuildHistoryRecord {
        self.record.get_or_insert_default()
    }
}

impl Drop for Remembered {
    fn drop(&mut self) {
        let Some(mut record) = self.record.take() else { return };
        record.completed_at = Some(to_timestamp(SystemTime::now()));
        self.running.progress().close();
        let (daemon, progress) = (self.daemon.clone(), self.running.progress().subscribe());
        tokio::spawn(async move { daemon.history.completed(&daemon.store, record, progress).await });
    }
}

async fn build(
    daemon: &Arc<Daemon>,
    request: &BuildRequest,
    running: &Running,
) -> Result<BTreeMap<String, String>, Error> {
    // What cannot be exported is refused before anything runs.
    let exporters = exporting::prepare(daemon, request)?;
    let context = Arc::new(context(request)?);
    let progress = running.progress().clone();
    let job: Job<VertexOp> =
        daemon.solver.new_job(JobId::new(request.id.as_str()), context.clone(), progress.clone());
    let bridge = BuildBridge::new(
        job.clone(),
        daemon.worker.clone(),
        context,
        &request.session,
        &request.id,
        daemon.frontends(),
        daemon.allowed_images.clone(),
    );
    let solution = solve(daemon, request, &bridge).await?;
    let source = exporting::Source::from(results(solution).await?);
    let response = exporting::run(daemon, request, &job, progress, exporters, source).await;
    job.discard();
    response
}

/// The frontend's answer: from the client itself when it asks for no frontend and gives no graph.
async fn solve(
    daemon: &Arc<Daemon>,
    request: &BuildRequest,
    bridge: &BuildBridge,
) -> Result<Solution<Promise>, Error> {
    if request.frontend.is_empty() && request.definition.is_none() {
        let forwarder = Forwarder::new(Arc::new(bridge.clone()), request.frontend_inputs.clone());
        let registration = daemon.gateway.register(&request.id, forwarder.clone())?;
        let answer = forwarder.answer().await;
        drop(registration);
        forwarder.close().await;
        return answer;
    }
    let asked = SolveRequest {
        definition: request.definition.clone(),
        frontend: request.frontend.clone(),
        frontend_opts: request.frontend_opts.clone(),
        frontend_inputs: request.frontend_inputs.clone(),
        cache_imports: request.cache_imports.clone(),
        source_policies: Vec::new(),
        evaluate: false,
    };
    bridge.solve(asked).await
}

/// Waits for all promised results, which are solved at the same time.
async fn results(solution: Solution<Promise>) -> Result<Solution<Ref>, Error> {
    let mut all: Vec<BoxFuture<'_, Result<_, Error>>> = Vec::new();
    for promise in solution.all_refs() {
        all.push(Box::pin(promise.result()));
    }
    futures::future::try_join_all(all).await?;
    solution.try_map(|promise| promise.solved())
}

fn context(request: &BuildRequest) -> Result<BuildContext, Error> {
    if !request.policy_session.is_empty() || request.source_policy.is_some() {
        return Err(Error::new(tonic::Code::Unimplemented, "source policies are not supported by kilnd yet"));
    }
    let sessions = SessionGroup::new([SessionId::new(&request.session)]);
    let granted = |name: &str| request.entitlements.contains(name);
    Ok(BuildContext::new(sessions).with_entitlements(Entitlements {
        network_host: granted("network.host"),
        security_insecure: granted("security.insecure"),
    }))
}
