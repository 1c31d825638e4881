//! The service's calls.

use super::convert;
use super::exec::exec_process;
use super::registry::Gateway;
use crate::{Bridge, Error, MetaRequest, caps};
use kiln_proto::frontend as api;
use kiln_proto::frontend::llb_bridge_server::LlbBridge;
use kiln_proto::pb;
use std::collections::BTreeMap;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

const IMAGE_SCHEME: &str = "docker-image://";
const OCI_LAYOUT_SCHEME: &str = "oci-layout://";
/// The resolver type that means a client's OCI layout.
const RESOLVER_OCI_LAYOUT: i32 = 1;

/// What is known about a container's exec session ends up in a stream of this many messages at most.
pub(super) const EXEC_QUEUE: usize = 32;

macro_rules! forward {
    ($self:ident, $request:ident, $call:literal) => {{
        let forwarder = $self.find($request.metadata(), $call).await?;
        (forwarder, $request.into_inner())
    }};
}

#[tonic::async_trait]
impl<B: Bridge> LlbBridge for Gateway<B> {
    async fn resolve_image_config(
        &self,
        request: Request<api::ResolveImageConfigRequest>,
    ) -> Result<Response<api::ResolveImageConfigResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "ResolveImageConfig");
        Ok(Response::new(image_config(&*forwarder.bridge, request).await?))
    }

    async fn resolve_source_meta(
        &self,
        request: Request<api::ResolveSourceMetaRequest>,
    ) -> Result<Response<api::ResolveSourceMetaResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "ResolveSourceMeta");
        let (source, meta) = convert::meta_of_message(request)?;
        let found = forwarder.bridge.resolve_source_meta(source, meta).await?;
        Ok(Response::new(convert::meta_to_message(found)))
    }

    async fn solve(
        &self,
        request: Request<api::SolveRequest>,
    ) -> Result<Response<api::SolveResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "Solve");
        Ok(Response::new(forwarder.solve(request).await?))
    }

    async fn read_file(
        &self,
        request: Request<api::ReadFileRequest>,
    ) -> Result<Response<api::ReadFileResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "ReadFile");
        let (reference, range) = (forwarder.find(&request.r#ref)?, convert::file_range(request.range)?);
        let data = forwarder.bridge.read_file(&reference, &request.file_path, range).await?;
        Ok(Response::new(api::ReadFileResponse { data }))
    }

    async fn read_dir(
        &self,
        request: Request<api::ReadDirRequest>,
    ) -> Result<Response<api::ReadDirResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "ReadDir");
        let reference = forwarder.find(&request.r#ref)?;
        let entries =
            forwarder.bridge.read_dir(&reference, &request.dir_path, &request.include_pattern).await?;
        Ok(Response::new(api::ReadDirResponse { entries }))
    }

    async fn stat_file(
        &self,
        request: Request<api::StatFileRequest>,
    ) -> Result<Response<api::StatFileResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "StatFile");
        let reference = forwarder.find(&request.r#ref)?;
        let stat = forwarder.bridge.stat_file(&reference, &request.path).await?;
        Ok(Response::new(api::StatFileResponse { stat: Some(stat) }))
    }

    async fn evaluate(
        &self,
        request: Request<api::EvaluateRequest>,
    ) -> Result<Response<api::EvaluateResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "Evaluate");
        forwarder.bridge.evaluate(&forwarder.find(&request.r#ref)?).await?;
        Ok(Response::new(api::EvaluateResponse {}))
    }

    async fn ping(&self, request: Request<api::PingRequest>) -> Result<Response<api::PongResponse>, Status> {
        let (forwarder, _) = forward!(self, request, "Ping");
        Ok(Response::new(api::PongResponse {
            frontend_api_caps: caps::GATEWAY.advertise(),
            llb_caps: kiln_llb::caps::LLB.advertise(),
            workers: forwarder.bridge.workers().iter().map(convert::worker).collect(),
        }))
    }

    async fn r#return(
        &self,
        request: Request<api::ReturnRequest>,
    ) -> Result<Response<api::ReturnResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "Return");
        forwarder.return_(request)?;
        Ok(Response::new(api::ReturnResponse {}))
    }

    async fn inputs(
        &self,
        request: Request<api::InputsRequest>,
    ) -> Result<Response<api::InputsResponse>, Status> {
        let (forwarder, _) = forward!(self, request, "Inputs");
        Ok(Response::new(api::InputsResponse { definitions: forwarder.inputs.clone() }))
    }

    async fn new_container(
        &self,
        request: Request<api::NewContainerRequest>,
    ) -> Result<Response<api::NewContainerResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "NewContainer");
        forwarder.new_container(request).await?;
        Ok(Response::new(api::NewContainerResponse {}))
    }

    async fn release_container(
        &self,
        request: Request<api::ReleaseContainerRequest>,
    ) -> Result<Response<api::ReleaseContainerResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "ReleaseContainer");
        forwarder.release_container(&request.container_id).await?;
        Ok(Response::new(api::ReleaseContainerResponse {}))
    }

    type ExecProcessStream = ReceiverStream<Result<api::ExecMessage, Status>>;

    async fn exec_process(
        &self,
        request: Request<Streaming<api::ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        let (forwarder, messages) = forward!(self, request, "ExecProcess");
        Ok(Response::new(exec_process(forwarder, messages)))
    }

    async fn read_file_container(
        &self,
        request: Request<api::ReadFileRequest>,
    ) -> Result<Response<api::ReadFileResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "ReadFileContainer");
        let (container, mount) = forwarder.container_of_file(&request.r#ref, request.mount_index)?;
        let range = convert::file_range(request.range)?;
        let data = container.read_file(mount, &request.file_path, range).await?;
        Ok(Response::new(api::ReadFileResponse { data }))
    }

    async fn read_dir_container(
        &self,
        request: Request<api::ReadDirRequest>,
    ) -> Result<Response<api::ReadDirResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "ReadDirContainer");
        let (container, mount) = forwarder.container_of_file(&request.r#ref, request.mount_index)?;
        let entries = container.read_dir(mount, &request.dir_path, &request.include_pattern).await?;
        Ok(Response::new(api::ReadDirResponse { entries }))
    }

    async fn stat_file_container(
        &self,
        request: Request<api::StatFileRequest>,
    ) -> Result<Response<api::StatFileResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "StatFileContainer");
        let (container, mount) = forwarder.container_of_file(&request.r#ref, request.mount_index)?;
        let stat = container.stat_file(mount, &request.path).await?;
        Ok(Response::new(api::StatFileResponse { stat: Some(stat) }))
    }

    async fn warn(&self, request: Request<api::WarnRequest>) -> Result<Response<api::WarnResponse>, Status> {
        let (forwarder, request) = forward!(self, request, "Warn");
        forwarder.bridge.warn(convert::warning(request)).await?;
        Ok(Response::new(api::WarnResponse {}))
    }
}

/// The older form of a look at an image.
async fn image_config<B: Bridge>(
    bridge: &B,
    request: api::ResolveImageConfigRequest,
) -> Result<api::ResolveImageConfigResponse, Error> {
    let parsed = kiln_oci::Reference::parse(&request.r#ref);
    let parsed = parsed.map_err(|error| {
        Error::of(&error).context(format!("could not parse reference {:?}", request.r#ref))
    })?;
    let reference = parsed.to_string();
    let mut attrs = BTreeMap::new();
    let layout = request.resolver_type == RESOLVER_OCI_LAYOUT;
    if layout {
        let set = [
            (kiln_llb::attrs::OCI_SESSION_ID, &request.session_id),
            (kiln_llb::attrs::OCI_STORE_ID, &request.store_id),
        ];
        let set = set.into_iter().filter(|(_, value)| !value.is_empty());
        attrs.extend(set.map(|(key, value)| (key.to_owned(), value.clone())));
    }
    let scheme = if layout { OCI_LAYOUT_SCHEME } else { IMAGE_SCHEME };
    let source = pb::SourceOp { identifier: format!("{scheme}{reference}"), attrs };
    let meta = MetaRequest {
        platform: request.platform.as_ref().map(convert::platform_of),
        log_name: request.log_name,
        resolve_mode: request.resolve_mode,
        oci_store: layout.then_some((request.session_id, request.store_id)),
        source_policies: request.source_policies,
        ..MetaRequest::default()
    };
    let found = bridge.resolve_source_meta(source, meta).await;
    let found =
        found.map_err(|error| error.context(format!("failed to resolve source metadata for {reference}")))?;
    let identifier = found.source.identifier;
    let Some(image) = found.image else {
        let text = format!("ref mutated by policy to non-image: {IMAGE_SCHEME}{reference} -> {identifier}");
        return Err(Error::unknown(text));
    };
    let r#ref = identifier.strip_prefix(IMAGE_SCHEME).unwrap_or(&identifier);
    let r#ref = r#ref.strip_prefix(OCI_LAYOUT_SCHEME).unwrap_or(r#ref).to_owned();
    Ok(api::ResolveImageConfigResponse { digest: image.digest, config: image.config, r#ref })
}
