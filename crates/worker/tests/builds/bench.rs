//! A daemon's inside without a daemon, and a client of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use kiln_exec::{Executor, ExecutorConfig};
use kiln_llb::{Constraints, LocalSource, MarshalOptions, RunInfo, State};
use kiln_oci::Platform;
use kiln_proto::control::control_server::{Control, ControlServer};
use kiln_proto::control::*;
use kiln_registry::{Registry, RegistryError, RegistrySettings};
use kiln_session::client::{LayoutStore, SecretSource, SecretValue, Session};
use kiln_session::daemon::{SessionGroup, SessionId, SessionManager};
use kiln_session::fsync::{LocalDir, Spools};
use kiln_solver::{BuildOptions, Event, JobId, ProgressSink, SolveError, Solver, SolverOptions};
use kiln_store::{Store, StoreOptions};
use kiln_worker::{
    BuildContext, Entitlements, GitSettings, Ref, StepLogLimits, VertexOp, Worker, WorkerConfig,
};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub worker: Worker,
    pub solver: Solver<VertexOp>,
    pub sessions: SessionManager,
    pub session: SessionId,
    layouts: Vec<(String, PathBuf)>,
}

/// What a build came to.
pub struct Built {
    pub result: Result<Ref, String>,
    pub events: Vec<Event>,
}

impl Bench {
    pub async fn new() -> Bench {
        Bench::with_layouts(Vec::new()).await
    }

    /// With these layouts at the client.
    pub async fn with_layouts(layouts: Vec<(String, PathBuf)>) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("context")).unwrap();
        let sessions = SessionManager::new();
        let (worker, solver) = start(dir.path(), &sessions).await;
        let session = client(dir.path(), &sessions, &layouts).await;
        Bench { dir, worker, solver, sessions, session, layouts }
    }

    /// The same state with a new daemon around it.
    pub async fn restarted(self) -> Bench {
        let Bench { dir, worker, solver, sessions, layouts, .. } = self;
        drop((worker, solver, sessions));
        let sessions = SessionManager::new();
        // The store's lock goes with its last user, which may still be on its way out.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (worker, solver) = start(dir.path(), &sessions).await;
        let session = client(dir.path(), &sessions, &layouts).await;
        Bench { dir, worker, solver, sessions, session, layouts }
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.context().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// The client's folder.
    pub fn local(&self) -> State {
        let options = LocalSource { session_id: Some(self.session.to_string()), ..LocalSource::default() };
        State::local("context", options, Constraints::new())
    }

    pub fn build_context(&self) -> BuildContext {
        BuildContext::new(SessionGroup::new([self.session.clone()]))
            .with_entitlements(Entitlements { network_host: true, security_insecure: true })
    }

    pub async fn build(&self, state: &State) -> Built {
        self.build_with(state, self.build_context()).await
    }

    pub async fn build_with(&self, state: &State, context: BuildContext) -> Built {
        let definition = state.marshal(&MarshalOptions::new(host_platform(), "")).unwrap();
        let context = Arc::new(context);
        let events = Arc::new(Recorder::default());
        let loaded = match self.worker.load(&definition, &context).await {
            Ok(loaded) => loaded,
            Err(error) => return Built { result: Err(chain(&error)), events: Vec::new() },
        };
        let job = self.solver.new_job(JobId::new("test"), context, events.clone());
        let solved = job.build(&loaded.graph, &loaded.edge, &BuildOptions::default()).await;
        let result = match solved {
            Ok(result) => {
                let output = result.into_output();
                let sessions = SessionGroup::new([self.session.clone()]);
                let unpacked = self.worker.unpack(&output, &sessions, None).await;
                unpacked.map(|()| output).map_err(|error| chain(&error))
            }
            Err(error) => Err(chain_of_solve(&error)),
        };
        job.discard();
        drop(job);
        Built { result, events: std::mem::take(&mut events.0.lock().unwrap()) }
    }

    pub async fn read(&self, built: &Built, path: &str) -> String {
        let reference = built.result.as_ref().unwrap();
        let bytes = self.worker.read_file(reference, path, None).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }
}

impl Built {
    #[track_caller]
    pub fn ok(self) -> Built {
        if let Err(error) = &self.result {
            panic!("{error}\n{}", self.log());
        }
        self
    }

    #[track_caller]
    pub fn error(&self) -> &str {
        self.result.as_ref().unwrap_err()
    }

    /// All output of all steps.
    pub fn log(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            if let Event::Log { log, .. } = event {
                text.push_str(&String::from_utf8_lossy(&log.data));
            }
        }
        text
    }

    /// Names of vertices that had to run.
    pub fn ran(&self) -> Vec<String> {
        let mut last = HashMap::new();
        for event in &self.events {
            if let Event::Vertex(vertex) = event {
                last.insert(vertex.name.to_string(), vertex.cached || vertex.completed.is_none());
            }
        }
        let mut ran: Vec<String> =
            last.into_iter().filter(|(_, cached)| !cached).map(|(name, _)| name).collect();
        ran.sort();
        ran
    }
}

/// `sh -c` in a state.
pub fn sh(state: &State, line: &str) -> State {
    run_in(state, RunInfo { args: vec!["/bin/sh".into(), "-c".into(), line.into()], ..RunInfo::default() })
}

pub fn run_in(state: &State, info: RunInfo) -> State {
    state.run(info, Constraints::new()).unwrap().root().clone()
}

pub fn shell(line: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), line.into()]
}

/// A small root file system, made of this machine's static busybox.
pub fn make_root(dir: &Path) {
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(dir.join(name)).unwrap();
    }
    std::fs::copy("/bin/busybox", dir.join("bin/busybox")).unwrap();
    for applet in
        "sh cat ls touch echo id env stat mkdir rm wc sleep grep test true false mount sync".split(' ')
    {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(applet)).unwrap();
    }
    std::fs::write(dir.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\n")
        .unwrap();
    std::fs::write(dir.join("etc/group"), "root:x:0:\napp:x:1001:\n").unwrap();
}

async fn start(dir: &Path, sessions: &SessionManager) -> (Worker, Solver<VertexOp>) {
    let store = Store::open(&dir.join("store"), StoreOptions::default()).unwrap();
    let executor = Executor::new(ExecutorConfig::new(dir.join("executor"))).await.unwrap();
    let git = GitSettings {
        program: "git".into(),
        env: vec![("PATH".into(), std::env::var("PATH").unwrap_or_default())],
    };
    let worker = Worker::new(WorkerConfig {
        id: "test".into(),
        labels: std::collections::BTreeMap::new(),
        platforms: vec![kiln_oci::platform::default_for_host()].into(),
        store,
        executor,
        sessions: sessions.clone(),
        registry: Registry::new(RegistrySettings::default()).unwrap(),
        tls,
        user_agent: "kiln-test".into(),
        max_parallelism: Some(4),
        step_log: StepLogLimits::default(),
        git: Some(git),
        work_dir: dir.join("work"),
    })
    .unwrap();
    let solver = Solver::new(SolverOptions::new(worker.cache()));
    (worker, solver)
}

/// TLS that trusts nobody: no test goes to another machine.
fn tls() -> Result<rustls::ClientConfig, RegistryError> {
    Ok(rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

pub fn host_platform() -> Platform {
    kiln_oci::platform::default_for_host()
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl ProgressSink for Recorder {
    fn event(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn chain_of_solve(error: &SolveError<VertexOp>) -> String {
    chain(error)
}

struct Secrets;

#[async_trait::async_trait]
impl SecretSource for Secrets {
    async fn secret(&self, id: &str) -> Result<Option<SecretValue>, String> {
        Ok((id == "known").then(|| SecretValue(Bytes::from_static(b"the-secret-value"))))
    }
}

async fn client(dir: &Path, sessions: &SessionManager, layouts: &[(String, PathBuf)]) -> SessionId {
    let mut session = Session::new("shared").await.unwrap();
    let dirs = vec![
        ("context".into(), LocalDir::context(dir.join("context"))),
        ("root".into(), LocalDir::new(dir.join("root"))),
    ];
    session.directories(dirs, Spools::new(dir));
    session.secrets(Arc::new(Secrets));
    let stores = layouts.iter().map(|(id, path)| (format!("oci:{id}"), LayoutStore::read_only(path.clone())));
    session.stores(stores.collect());
    let id = SessionId::new(session.id());
    tokio::spawn(session.serve(daemon(sessions.clone())));
    sessions.get(&id, Duration::from_secs(10)).await.unwrap();
    id
}

struct Daemon(SessionManager);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for Daemon {
    type PruneStream = BoxStream<'static, Result<UsageRecord, Status>>;
    type StatusStream = BoxStream<'static, Result<StatusResponse, Status>>;
    type SessionStream = BoxStream<'static, Result<BytesMessage, Status>>;
    type ListenBuildHistoryStream = BoxStream<'static, Result<BuildHistoryEvent, Status>>;

    async fn session(&self, request: Request<Streaming<BytesMessage>>) -> Answer<Self::SessionStream> {
        let (metadata, _, incoming) = request.into_parts();
        let outgoing =
            self.0.open(&metadata, incoming).map_err(|error| Status::aborted(error.to_string()))?;
        Ok(Response::new(outgoing.boxed()))
    }

    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Answer<DiskUsageResponse> {
        Err(Status::unimplemented(""))
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Answer<Self::PruneStream> {
        Err(Status::unimplemented(""))
    }

    async fn solve(&self, _: Request<SolveRequest>) -> Answer<SolveResponse> {
        Err(Status::unimplemented(""))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<Self::StatusStream> {
        Err(Status::unimplemented(""))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Answer<ListWorkersResponse> {
        Err(Status::unimplemented(""))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Answer<InfoResponse> {
        Err(Status::unimplemented(""))
    }

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Answer<Self::ListenBuildHistoryStream> {
        Err(Status::unimplemented(""))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Answer<UpdateBuildHistoryResponse> {
        Err(Status::unimplemented(""))
    }
}

/// A connection to a daemon whose sessions `manager` keeps.
fn daemon(manager: SessionManager) -> Channel {
    let (here, there) = tokio::io::duplex(1 << 20);
    let incoming =
        futures::stream::once(async { Ok::<_, std::io::Error>(there) }).chain(futures::stream::pending());
    tokio::spawn(
        Server::builder().add_service(ControlServer::new(Daemon(manager))).serve_with_incoming(incoming),
    );
    let here = Mutex::new(Some(here));
    Endpoint::from_static("http://daemon").connect_with_connector_lazy(tower::service_fn(move |_| {
        let io = here.lock().unwrap().take().map(TokioIo::new);
        std::future::ready(io.ok_or_else(|| std::io::Error::other("connected before")))
    }))
}
