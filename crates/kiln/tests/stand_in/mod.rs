//! A daemon that answers what the client asks before it builds.

use std::io::Write as _;
use std::pin::Pin;

use futures::Stream;
use kiln_proto::control::control_server::{Control, ControlServer};
use kiln_proto::control::{
    BuildHistoryEvent, BuildHistoryRecord, BuildHistoryRequest, BytesMessage, DiskUsageRequest,
    DiskUsageResponse, InfoRequest, InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest,
    SolveRequest, SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UpdateBuildHistoryResponse, UsageRecord,
};
use kiln_proto::types::BuildkitVersion;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

/// Variable with the daemon's command line.
pub const ARGUMENTS: &str = "STAND_IN_ARGUMENTS";
/// Variable with the version that it tells, and `busy` where a build runs.
pub const VERSION: &str = "STAND_IN_VERSION";

/// Serves until SIGTERM, where this process was started to do so.
pub fn serve_if_asked() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    let version = std::env::var(VERSION).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(serve(&arguments, &version));
}

async fn serve(arguments: &str, version: &str) {
    let value = |name: &str| arguments.split(' ').skip_while(|word| *word != name).nth(1).unwrap().to_owned();
    let socket = value("--addr").strip_prefix("unix://").unwrap().to_owned();
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let (version, busy) =
        version.split_once(' ').map_or((version, false), |(version, word)| (version, word == "busy"));
    let server = ControlServer::new(StandIn { version: version.to_owned(), busy });
    // Opening the descriptor by name needs no unsafe code; the other one stays open until this process ends, which the
    // client does not wait for.
    let mut ready =
        std::fs::File::options().write(true).open(format!("/proc/self/fd/{}", value("--ready-fd"))).unwrap();
    ready.write_all(b"ready\n").unwrap();
    tonic::transport::Server::builder()
        .add_service(server)
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .unwrap();
}

struct StandIn {
    version: String,
    busy: bool,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn nothing<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a stand-in does not build"))
}

#[tonic::async_trait]
impl Control for StandIn {
    type PruneStream = Answers<UsageRecord>;
    type StatusStream = Answers<StatusResponse>;
    type SessionStream = Answers<BytesMessage>;
    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        Ok(Response::new(DiskUsageResponse::default()))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let version = BuildkitVersion { version: self.version.clone(), ..BuildkitVersion::default() };
        Ok(Response::new(InfoResponse { buildkit_version: Some(version) }))
    }

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        let event =
            BuildHistoryEvent { record: Some(BuildHistoryRecord::default()), ..BuildHistoryEvent::default() };
        Ok(Response::new(Box::pin(futures::stream::iter(self.busy.then_some(Ok(event))))))
    }

    async fn prune(&self, _: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        nothing()
    }

    async fn solve(&self, _: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        nothing()
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        nothing()
    }

    async fn session(
        &self,
        _: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        nothing()
    }

    async fn list_workers(
        &self,
        _: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        nothing()
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        nothing()
    }
}
