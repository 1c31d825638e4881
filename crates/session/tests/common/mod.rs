//! A daemon and a client of it in one process, joined by a pipe in memory.

#![allow(dead_code, reason = "each test file uses a part")]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use kiln_proto::control::control_server::{Control, ControlServer};
use kiln_proto::control::*;
use kiln_session::client::Session;
use kiln_session::daemon::{Caller, SessionId, SessionManager};
use kiln_spool::{Bounds, Spools};
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

/// An open session, and what ends it when dropped.
pub struct Open {
    pub caller: Caller,
    pub manager: SessionManager,
    pub client: tokio::task::JoinHandle<Result<(), kiln_session::client::Error>>,
}

/// Opens a session that `configure` gives services to.
pub async fn session(configure: impl FnOnce(&mut Session)) -> Open {
    let manager = SessionManager::new();
    let mut session = Session::new("shared").await.expect("has random numbers");
    configure(&mut session);
    let id = SessionId::new(session.id());
    let client = tokio::spawn(session.serve(daemon(manager.clone())));
    let caller = manager.get(&id, Duration::from_secs(10)).await.expect("opens");
    Open { caller, manager, client }
}

/// Lists of files are in memory, unless there are a great many.
pub fn spools() -> Spools {
    Spools::new(std::env::temp_dir())
}

/// All lists but the shortest are in a file of `dir`.
pub fn tiny_spools(dir: &Path) -> Spools {
    Spools::new(dir).with_bounds(Bounds { short_bytes_max: 300, tail_bytes_max: 150 })
}

pub fn handle(path: &Path) -> OwnedFd {
    std::fs::File::open(path).expect("is a directory").into()
}
