//! `moby.buildkit.v1.Control`: the service that clients build with.

mod entitlements;
mod request;
mod usage;
mod workers;

pub use request::BuildRequest;

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use futures::{Stream, StreamExt};
use kiln_proto::control::control_server::Control;
use kiln_proto::control::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse,
    StatusRequest, StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use tonic::{Request, Response, Status, Streaming};

use crate::daemon::Daemon;
use crate::{history, version};

/// Header of answers that carry times, so that clients can allow for a clock that differs.
const TIMESTAMP_HEADER: &str = "buildkit-current-timestamp";

/// The service. Clones share the daemon.
#[derive(Clone)]
pub struct ControlService(pub Arc<Daemon>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn stamped<T>(answer: T) -> Response<T> {
    let mut response = Response::new(answer);
    if let Ok(value) = kiln_oci::Timestamp::from(SystemTime::now()).to_string().parse() {
        response.metadata_mut().insert(TIMESTAMP_HEADER, value);
    }
    response
}

#[tonic::async_trait]
impl Control for ControlService {
    type PruneStream = Answers<UsageRecord>;
    type StatusStream = Answers<StatusResponse>;
    type SessionStream = Answers<BytesMessage>;
    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>, Status> {
        Ok(Response::new(DiskUsageResponse { record: usage::list(&self.0, request.into_inner()).await? }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        Ok(Response::new(usage::prune(&self.0, request.into_inner())))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let _busy = self.0.activity.begin();
        let build = request::read(request.into_inner(), &self.0)?;
        let done = crate::solve::run(&self.0, build).await;
        self.0.garbage.poke();
        Ok(Response::new(SolveResponse { exporter_response: done? }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let id = request.into_inner().r#ref;
        if let Some(progress) = self.0.builds.find_now(&id) {
            return Ok(stamped(follow(progress.subscribe())));
        }
        if let Some(replay) = history::replay(&self.0, &id).await? {
            return Ok(stamped(replay));
        }
        match self.0.builds.find(&id).await {
            Some(progress) => Ok(stamped(follow(progress.subscribe()))),
            None => Err(Status::not_found(format!("no such job {id}"))),
        }
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let answers = self.0.sessions.open(&metadata, incoming);
        let answers = answers.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>, Status> {
        Ok(Response::new(ListWorkersResponse {
            record: workers::list(&self.0, &request.into_inner().filter)?,
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(version::record()) }))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Ok(stamped(history::listen(&self.0, request.into_inner()).await?))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        history::update(&self.0, request.into_inner()).await?;
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

fn follow(subscription: crate::builds::Subscription) -> Answers<StatusResponse> {
    futures::stream::unfold(subscription, |mut subscription| async move {
        let answer = subscription.next().await?;
        Some((Ok(answer), subscription))
    })
    .boxed()
}
