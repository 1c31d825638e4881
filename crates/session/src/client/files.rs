//! The client's directories.

use std::collections::HashMap;
use std::pin::Pin;

use futures::{Stream, StreamExt};
use kiln_proto::filesync::file_sync_server::FileSync;
use kiln_proto::fsutil_types::Packet;
use kiln_spool::Spools;
use tonic::{Request, Response, Status, Streaming};

use crate::fsync::{Filter, FilteredDir, LocalDir, decode_values, send};
use crate::keys;

/// Directories by name. Nothing else of this host can be asked for.
pub(super) struct Service {
    dirs: HashMap<String, LocalDir>,
    spools: Spools,
}

impl Service {
    pub(super) fn new(dirs: Vec<(String, LocalDir)>, spools: Spools) -> Self {
        Self { dirs: dirs.into_iter().collect(), spools }
    }
}

type PacketStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

#[tonic::async_trait]
impl FileSync for Service {
    type DiffCopyStream = PacketStream;
    type TarStreamStream = PacketStream;

    async fn diff_copy(&self, request: Request<Streaming<Packet>>) -> Result<Response<PacketStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let name = decode_values(&metadata, keys::DIR_NAME).into_iter().next().unwrap_or_default();
        let dir = self.dirs.get(&name).cloned();
        let dir = dir.ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
        let filter = tokio::task::spawn_blocking({
            let dir = dir.clone();
            move || {
                let values = |key| decode_values(&metadata, key);
                let (include, exclude) = (values(keys::INCLUDE_PATTERNS), values(keys::EXCLUDE_PATTERNS));
                Filter::for_request(&dir, &include, &exclude, &values(keys::FOLLOW_PATHS))
            }
        });
        let filter = filter.await.map_err(|error| Status::internal(error.to_string()))??;
        let source = FilteredDir { dir, filter };
        let (packets, task) = send(incoming, source, self.spools.clone(), |_, _| {});
        // The call ends as the transfer does.
        let end = futures::stream::once(task).filter_map(|result| async {
            match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Err(error.into())),
                Err(error) => Some(Err(Status::internal(error.to_string()))),
            }
        });
        Ok(Response::new(Box::pin(packets.map(Ok).chain(end))))
    }

    async fn tar_stream(&self, _: Request<Streaming<Packet>>) -> Result<Response<PacketStream>, Status> {
        Err(Status::unimplemented("tar streams are not used by any daemon"))
    }
}
