//! Exporters chosen by the client once the result is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::moby::exporter::v1::exporter_server::Exporter;
use kiln_proto::moby::exporter::v1::{
    ExporterRequest, FinalizeExportRequest, FinalizeExportResponse, FindExportersRequest,
    FindExportersResponse,
};
use tonic::{Request, Response, Status};

/// An exporter with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenExporter {
    pub kind: String,
    pub attributes: BTreeMap<String, String>,
}

/// Chooses exporters.
#[async_trait]
pub trait ExporterChoice: Send + Sync {
    /// The exporters for a result with this metadata.
    async fn choose(&self, metadata: BTreeMap<String, Bytes>, refs: Vec<String>) -> Vec<ChosenExporter>;
}

pub(super) struct Service(pub(super) Arc<dyn ExporterChoice>);

#[async_trait]
impl Exporter for Service {
    async fn find_exporters(
        &self,
        request: Request<FindExportersRequest>,
    ) -> Result<Response<FindExportersResponse>, Status> {
        let request = request.into_inner();
        let chosen = self.0.choose(request.metadata, request.refs).await;
        let exporters = chosen
            .into_iter()
            .map(|chosen| ExporterRequest { r#type: chosen.kind, attrs: chosen.attributes })
            .collect();
        Ok(Response::new(FindExportersResponse { exporters }))
    }

    async fn finalize_export(
        &self,
        _: Request<FinalizeExportRequest>,
    ) -> Result<Response<FinalizeExportResponse>, Status> {
        Ok(Response::new(FinalizeExportResponse {}))
    }
}
