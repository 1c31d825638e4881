//! Traces that clients send. They are taken, so that clients which trace are served, and not kept.

use kiln_proto::trace::trace_service_server::TraceService;
use kiln_proto::trace::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use tonic::{Request, Response, Status};

/// Takes traces.
#[derive(Clone, Copy, Default)]
pub struct TraceSink;

#[tonic::async_trait]
impl TraceService for TraceSink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
