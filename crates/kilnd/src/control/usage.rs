//! `DiskUsage` and `Prune`.

use std::time::Duration;

use futures::{Stream, StreamExt};
use kiln_proto::control::{DiskUsageRequest, PruneRequest, UsageRecord};
use kiln_proto::prost_types::Timestamp;
use kiln_store::{DiskUsageOptions, PruneOptions};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::daemon::Daemon;

/// Removed records that wait to be told.
const PRUNED_QUEUE: usize = 64;

fn failed(error: kiln_store::Error) -> Status {
    Status::unknown(kiln_frontend::Error::of(&error).message().to_owned())
}

fn nanoseconds(count: i64) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(0))
}

pub(super) async fn list(daemon: &Daemon, request: DiskUsageRequest) -> Result<Vec<UsageRecord>, Status> {
    let options = DiskUsageOptions {
        filters: request.filter,
        age_limit: (request.age_limit > 0).then(|| nanoseconds(request.age_limit)),
    };
    let store = daemon.store.clone();
    let records = tokio::task::spawn_blocking(move || store.disk_usage(&options))
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(failed)?;
    Ok(records.into_iter().map(to_wire).collect())
}

pub(super) fn prune(
    daemon: &Daemon,
    request: PruneRequest,
) -> std::pin::Pin<Box<dyn Stream<Item = Result<UsageRecord, Status>> + Send>> {
    let options = PruneOptions {
        filters: request.filter,
        all: request.all,
        keep_duration: nanoseconds(request.keep_duration),
        reserved_space: request.reserved_space,
        max_used_space: request.max_used_space,
        min_free_space: request.min_free_space,
    };
    let (send, receive) = mpsc::channel(PRUNED_QUEUE);
    let (store, solver) = (daemon.store.clone(), daemon.solver.clone());
    tokio::task::spawn_blocking(move || {
        // A client that went away does not stop what it asked for.
        let done = store.prune(&options, &mut |record| {
            let _ = send.blocking_send(Ok(to_wire(record)));
        });
        if let Err(error) = done {
            let _ = send.blocking_send(Err(failed(error)));
        }
        if let Err(error) = solver.release_unreferenced() {
            tracing::warn!(%error, "cache keys without results could not be removed");
        }
    });
    ReceiverStream::new(receive).boxed()
}

fn to_wire(record: kiln_store::UsageRecord) -> UsageRecord {
    let time = |milliseconds: i64| Timestamp {
        seconds: milliseconds.div_euclid(1000),
        nanos: i32::try_from(milliseconds.rem_euclid(1000) * 1_000_000).unwrap_or(0),
    };
    let parents: Vec<String> = record.parents.iter().map(ToString::to_string).collect();
    UsageRecord {
        id: record.id.to_string(),
        mutable: record.mutable,
        in_use: record.in_use,
        size: record.size,
        parent: parents.first().cloned().unwrap_or_default(),
        created_at: Some(time(record.created_ms)),
        last_used_at: record.last_used_ms.map(time),
        usage_count: record.usage_count,
        description: record.description,
        record_type: record.record_type.as_str().to_owned(),
        shared: record.shared,
        parents,
    }
}
