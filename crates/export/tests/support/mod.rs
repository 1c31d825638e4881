//! A store with results in it, a client that receives, and a daemon's end of its session, in one process.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use kiln_export::source::{PLATFORMS_KEY, Source};
use kiln_export::{ExportBuild, Exported, Exporters, Reporter};
use kiln_oci::{Image, Platform, gojson};
use kiln_proto::control::control_server::{Control, ControlServer};
use kiln_proto::control::*;
use kiln_registry::{AnonymousCredentials, Registry, RegistrySettings};
use kiln_session::client::{Session, Target, TargetFile};
use kiln_session::daemon::{SessionId, SessionManager};
use kiln_session::fsync::Spools;
use kiln_solver::{Digest, Event, ProgressSink};
use kiln_store::{CommitInfo, LayerMeta, Ref, Store, StoreOptions};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

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
pub fn daemon(manager: SessionManager) -> Channel {
    let (here, there) = tokio::io::duplex(1 << 20);
    let incoming =
        futures::stream::once(async { Ok::<_, std::io::Error>(there) }).chain(futures::stream::pending());
    tokio::spawn(
        Server::builder().add_service(ControlServer::new(Daemon(manager))).serve_with_incoming(incoming),
    );
    let here = std::sync::Mutex::new(Some(here));
    Endpoint::from_static("http://daemon").connect_with_connector_lazy(tower::service_fn(move |_| {
        let io = here.lock().expect("not poisoned").take().map(TokioIo::new);
        std::future::ready(io.ok_or_else(|| std::io::Error::other("connected before")))
    }))
}

/// Where results of exporter number 0 go.
pub enum Receives {
    Nothing,
    File,
    /// A file, by giving its handle.
    Handle,
    Folder {
        delete: bool,
    },
}

/// A daemon's store and a client's folder.
pub struct World {
    pub folder: TempDir,
    pub store: Store,
    pub exporters: Exporters,
    pub build: ExportBuild,
    pub told: Arc<Told>,
}

/// Names of status lines, in the order in which they appeared.
#[derive(Default)]
pub struct Told(pub Mutex<Vec<String>>);

impl ProgressSink for Told {
    fn event(&self, event: Event) {
        if let Event::Status { status, .. } = event {
            let mut lines = self.0.lock().unwrap();
            if !lines.iter().any(|line| **line == *status.id) {
                lines.push(status.id.to_string());
            }
        }
    }
}

pub async fn world(receives: Receives) -> World {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state"), StoreOptions::default()).unwrap();
    let sessions = SessionManager::new();
    let mut session = Session::new("").await.unwrap();
    let out = folder.path().join("out");
    if matches!(receives, Receives::Handle) {
        session.give_handles();
    }
    let target = match receives {
        Receives::Nothing => None,
        Receives::File | Receives::Handle => Some(Target::File(Box::new(move |_| {
            Ok(Some(Box::new(std::fs::File::create(&out)?) as Box<dyn TargetFile>))
        }))),
        Receives::Folder { delete } => Some(Target::Dir { path: out, delete }),
    };
    let spools = Spools::new(folder.path());
    session.targets(target.into_iter().map(|target| (0, target)).collect(), spools);
    let id = SessionId::new(session.id());
    tokio::spawn(session.serve(daemon(sessions.clone())));
    let registry = Registry::new(RegistrySettings::default()).unwrap();
    let told = Arc::new(Told::default());
    let build = ExportBuild {
        session: id,
        registry: registry.client(Arc::new(AnonymousCredentials)),
        reporter: Reporter::new(told.clone(), Digest::of(b"exporter")),
        inline_cache: None,
        compatibility_version: 30,
    };
    World { exporters: Exporters { store: store.clone(), sessions }, folder, store, build, told }
}

impl World {
    pub fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// A layer with these files on top of others.
    pub fn layer(&self, parent: &Ref, description: &str, files: &[(&str, &str)]) -> Ref {
        let layer = self.store.new_layer(parent, LayerMeta::regular(description)).unwrap();
        write_files(layer.dir(), files);
        layer.commit(CommitInfo::default()).unwrap()
    }

    pub async fn export(
        &self,
        kind: &str,
        source: &Source<Ref>,
        attrs: &[(&str, &str)],
    ) -> Result<Exported, kiln_export::ExportError> {
        let exporter = self.exporters.resolve(kind, 0, text_map(attrs))?;
        let exported = exporter.export(&self.exporters, source, &self.build).await?;
        exported.finalize(&self.exporters, &self.build).await?;
        Ok(exported)
    }
}

pub fn write_files(folder: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

pub fn text_map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

pub fn config(architecture: &str) -> Bytes {
    let mut image = Image::default();
    image.set_platform(Platform::linux(architecture));
    image.config.env = vec!["A=b".into()];
    gojson::to_vec(&image).unwrap().into()
}

/// A result without platforms.
pub fn single(reference: &Ref) -> Source<Ref> {
    let mut source = Source { reference: Some(reference.clone()), ..Source::default() };
    source.metadata.insert("containerimage.config".into(), config("amd64"));
    source
}

/// A result with platforms.
pub fn multi(refs: &[(&str, &Ref)]) -> Source<Ref> {
    let mut source = Source::default();
    let mut platforms = Vec::new();
    for (architecture, reference) in refs {
        let id = format!("linux/{architecture}");
        source.refs.insert(id.clone(), Some((*reference).clone()));
        source.metadata.insert(format!("containerimage.config/{id}"), config(architecture));
        platforms
            .push(serde_json::json!({"ID": id, "Platform": {"os": "linux", "architecture": architecture}}));
    }
    let platforms = serde_json::json!({ "Platforms": platforms });
    source.metadata.insert(PLATFORMS_KEY.into(), platforms.to_string().into());
    source
}
