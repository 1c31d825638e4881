//! Exporters that the client chooses once the result is known.

use std::collections::BTreeMap;

use bytes::Bytes;
use kiln_proto::moby::exporter::v1::exporter_client::ExporterClient;
use kiln_proto::moby::exporter::v1::{ExporterRequest, FinalizeExportRequest, FindExportersRequest};

use super::{Caller, Error};

const FIND: &str = "/moby.exporter.v1.Exporter/FindExporters";
const FINALIZE: &str = "/moby.exporter.v1.Exporter/FinalizeExport";

impl Caller {
    /// The exporters for a result with this metadata and these refs.
    pub async fn find_exporters(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, Error> {
        let mut client = ExporterClient::new(self.channel_for(FIND)?);
        Ok(client.find_exporters(FindExportersRequest { metadata, refs }).await?.into_inner().exporters)
    }

    /// Tells the client what the exporters answered. Clients without that call are not told.
    pub async fn finalize_export(&self, response: BTreeMap<String, String>) -> Result<(), Error> {
        if !self.supports(FINALIZE) {
            return Ok(());
        }
        let mut client = ExporterClient::new(self.channel_for(FINALIZE)?);
        match client.finalize_export(FinalizeExportRequest { exporter_response: response }).await {
            Err(status) if status.code() != tonic::Code::Unimplemented => Err(status.into()),
            _ => Ok(()),
        }
    }
}
