//! What finished builds left: their records, and their progress to be shown again.
//!
//! A record is the wire's own message, kept in the store; the progress is a blob of answers, each behind its length in four bytes,
//! little endian (BuildKit's `application/vnd.buildkit.status.v0`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::{Stream, StreamExt};
use kiln_proto::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, Descriptor,
    StatusResponse, UpdateBuildHistoryRequest,
};
use kiln_proto::prost::Message;
use kiln_proto::prost_types::{Any, Timestamp};
use kiln_store::{Blob, HistoryEntry, Store};
use tokio::sync::broadcast;
use tonic::Status;

use crate::attest::HistoryStatement;
use crate::builds::{Subscription, to_timestamp};
use crate::daemon::Daemon;

/// Kind of the blob with a build's progress.
const STATUS_MEDIA_TYPE: &str = "application/vnd.buildkit.status.v0";
/// Kind of the blobs with statements about a build.
const IN_TOTO_MEDIA_TYPE: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE_ANNOTATION: &str = "in-toto.io/predicate-type";
/// Kind of the blob with all details of a build's failure (spelled as BuildKit spells it).
const ERROR_MEDIA_TYPE: &str = "application/vnd.googeapis.google.rpc.status+proto";
/// The detail of a failure that says which program met it (`stack.Stack` in BuildKit, where lines of code follow).
const STACK_TYPE_URL: &str = "github.com/moby/buildkit/stack.Stack+json";
/// Events that a slow listener may lag behind.
const EVENTS: usize = 256;
/// The largest answer in a stored progress, in bytes.
const ANSWER_BYTES_MAX: usize = kiln_proto::MESSAGE_BYTES_MAX;

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The builds that run or ran, and who listens for them.
pub struct History {
    events: broadcast::Sender<BuildHistoryEvent>,
    /// Records of builds that run.
    active: Mutex<Vec<BuildHistoryRecord>>,
    max_age: Duration,
    max_entries: usize,
}

impl History {
    pub fn new(max_age: Duration, max_entries: usize) -> History {
        History { events: broadcast::channel(EVENTS).0, active: Mutex::default(), max_age, max_entries }
    }

    fn tell(&self, kind: BuildHistoryEventType, record: &BuildHistoryRecord) {
        // Without a listener there is nobody to tell.
        let _ = self.events.send(BuildHistoryEvent { r#type: kind as i32, record: Some(record.clone()) });
    }

    fn active(&self) -> std::sync::MutexGuard<'_, Vec<BuildHistoryRecord>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A build has started.
    pub fn started(&self, record: &BuildHistoryRecord) {
        self.active().push(record.clone());
        self.tell(BuildHistoryEventType::Started, record);
    }

    /// A build has ended: its record and progress are kept, and what is too old or too many goes.
    pub async fn completed(&self, store: &Store, mut record: BuildHistoryRecord, progress: Subscription) {
        self.active().retain(|active| active.r#ref != record.r#ref);
        if let Err(error) = keep(store, &mut record, progress).await {
            tracing::warn!(build = record.r#ref, %error, "the record of a build could not be kept");
        }
        self.tell(BuildHistoryEventType::Complete, &record);
        if let Err(error) = self.forget_old(store) {
            tracing::warn!(%error, "old records of builds could not be removed");
        }
    }

    fn forget_old(&self, store: &Store) -> Result<(), kiln_store::Error> {
        let mut entries: Vec<HistoryEntry> = store
            .history()
            .list()?
            .into_iter()
            .filter(|entry| !entry.pinned && entry.completed_ms.is_some())
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.created_ms));
        let oldest =
            milliseconds(SystemTime::now()) - i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX);
        for (place, entry) in entries.iter().enumerate() {
            if place >= self.max_entries || entry.created_ms < oldest {
                store.history().remove(&entry.id)?;
            }
        }
        Ok(())
    }
}

fn milliseconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn timestamp_ms(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| time.seconds.saturating_mul(1000) + i64::from(time.nanos) / 1_000_000)
}

/// Writes the progress into a blob and the record beside it.
async fn keep(
    store: &Store,
    record: &mut BuildHistoryRecord,
    mut progress: Subscription,
) -> Result<(), kiln_store::Error> {
    let mut bytes = Vec::new();
    let mut steps = std::collections::HashMap::new();
    while let Some(answer) = progress.next().await {
        for vertex in &answer.vertexes {
            steps.insert(
                vertex.digest.clone(),
                (vertex.cached, vertex.completed.is_some() && vertex.error.is_empty()),
            );
        }
        record.num_warnings += i32::try_from(answer.warnings.len()).unwrap_or(0);
        let length = answer.encoded_len();
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        // Encoding into a vector that grows cannot fail.
        let _ = answer.encode(&mut bytes);
    }
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    record.num_total_steps = count(steps.len());
    record.num_cached_steps = count(steps.values().filter(|(cached, _)| *cached).count());
    record.num_completed_steps = count(steps.values().filter(|(_, completed)| *completed).count());
    let store = store.clone();
    let mut kept = record.clone();
    let done = tokio::task::spawn_blocking(move || {
        let blob = store.content().put(&bytes)?;
        kept.logs = Some(Descriptor {
            media_type: STATUS_MEDIA_TYPE.to_owned(),
            digest: blob.digest().to_string(),
            size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
            annotations: Default::default(),
        });
        save(&store, &kept)?;
        Ok::<_, kiln_store::Error>(kept)
    })
    .await;
    if let Ok(done) = done {
        *record = done?;
    }
    Ok(())
}

fn save(store: &Store, record: &BuildHistoryRecord) -> Result<(), kiln_store::Error> {
    let statements = record.result.iter().chain(record.results.values()).flat_map(|one| &one.attestations);
    let kept = record.logs.iter().chain(&record.external_error).chain(statements);
    let blobs: Vec<kiln_oci::Digest> = kept.filter_map(|blob| blob.digest.parse().ok()).collect();
    let entry = HistoryEntry {
        id: record.r#ref.clone(),
        created_ms: timestamp_ms(record.created_at.as_ref()),
        completed_ms: record.completed_at.as_ref().map(|time| timestamp_ms(Some(time))),
        pinned: record.pinned,
        payload: record.encode_to_vec(),
    };
    store.history().put(&entry, &blobs)
}

fn read(entry: &HistoryEntry) -> Option<BuildHistoryRecord> {
    BuildHistoryRecord::decode(entry.payload.as_slice()).ok()
}

fn internal(error: kiln_store::Error) -> Status {
    Status::internal(kiln_frontend::Error::of(&error).message().to_owned())
}

/// The progress of a finished build, from the start; `None` when there is no such build.
pub async fn replay(daemon: &Daemon, id: &str) -> Result<Option<Answers<StatusResponse>>, Status> {
    let Some(entry) = daemon.store.history().get(id).map_err(internal)? else { return Ok(None) };
    let Some(logs) = read(&entry).and_then(|record| record.logs) else { return Ok(None) };
    let digest: kiln_oci::Digest =
        logs.digest.parse().map_err(|_| Status::data_loss("a record names no digest"))?;
    let limit = u64::try_from(logs.size).unwrap_or(0);
    let bytes = daemon.store.content().read(&digest, limit).map_err(internal)?;
    let answers = futures::stream::unfold(bytes, |mut rest| async move {
        let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        if length > ANSWER_BYTES_MAX || rest.len() < 4 + length {
            return Some((
                Err(Status::data_loss("the kept progress of a build is cut off")),
                Default::default(),
            ));
        }
        let frame = rest.split_to(4 + length);
        let answer =
            StatusResponse::decode(&frame[4..]).map_err(|error| Status::data_loss(error.to_string()));
        Some((answer, rest))
    });
    Ok(Some(answers.boxed()))
}

/// The builds there are, and unless the client wants only those, the ones to come.
pub async fn listen(
    daemon: &Daemon,
    request: BuildHistoryRequest,
) -> Result<Answers<BuildHistoryEvent>, Status> {
    let coming = daemon.history.events.subscribe();
    let mut now = Vec::new();
    let wanted = move |record: &BuildHistoryRecord| request.r#ref.is_empty() || request.r#ref == record.r#ref;
    if !request.active_only {
        let entries = daemon.store.history().list().map_err(internal)?;
        now.extend(entries.iter().filter_map(read).map(|record| (BuildHistoryEventType::Complete, record)));
    }
    now.extend(daemon.history.active().iter().map(|record| (BuildHistoryEventType::Started, record.clone())));
    now.retain(|(_, record)| wanted(record));
    now.sort_by_key(|(_, record)| std::cmp::Reverse(timestamp_ms(record.created_at.as_ref())));
    if let Ok(limit) = usize::try_from(request.limit)
        && limit > 0
    {
        now.truncate(limit);
    }
    now.reverse();
    let now = now
        .into_iter()
        .map(|(kind, record)| Ok(BuildHistoryEvent { r#type: kind as i32, record: Some(record) }));
    let now = futures::stream::iter(now.collect::<Vec<_>>());
    if request.early_exit {
        return Ok(now.boxed());
    }
    let coming = as_stream(coming);
    let coming = coming.filter(move |event| {
        let keep = event.as_ref().is_ok_and(|event| event.record.as_ref().is_some_and(&wanted));
        futures::future::ready(keep || event.is_err())
    });
    Ok(now.chain(coming).boxed())
}

/// A receiver as a stream; a listener that lagged too far is told so.
fn as_stream(receiver: broadcast::Receiver<BuildHistoryEvent>) -> Answers<BuildHistoryEvent> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Ok(event) => Some((Ok(event), receiver)),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                Some((Err(Status::resource_exhausted("the listener was too slow: listen again")), receiver))
            }
        }
    })
    .boxed()
}

/// Pins, unpins or deletes a record.
pub async fn update(daemon: &Daemon, request: UpdateBuildHistoryRequest) -> Result<(), Status> {
    let id = request.r#ref.as_str();
    let Some(entry) = daemon.store.history().get(id).map_err(internal)? else {
        return Err(Status::not_found(format!("no record of build {id}")));
    };
    let mut record =
        read(&entry).ok_or_else(|| Status::data_loss("the record of the build cannot be read"))?;
    if request.delete {
        daemon.store.history().remove(id).map_err(internal)?;
        daemon.history.tell(BuildHistoryEventType::Deleted, &record);
    } else if !request.finalize && record.pinned != request.pinned {
        record.pinned = request.pinned;
        record.generation += 1;
        save(&daemon.store, &record).map_err(internal)?;
        daemon.history.tell(BuildHistoryEventType::Complete, &record);
    }
    Ok(())
}

/// Notes an image that exporter number `id` made.
pub fn add_image(record: &mut BuildHistoryRecord, id: i64, image: &kiln_oci::Descriptor) {
    let descriptor = Descriptor {
        media_type: image.media_type.clone(),
        digest: image.digest.to_string(),
        size: i64::try_from(image.size).unwrap_or(i64::MAX),
        annotations: image.annotations.clone(),
    };
    let result = record.result.get_or_insert_default();
    if result.results.is_empty() {
        // For clients of old, which know one image.
        result.result_deprecated = Some(descriptor.clone());
    }
    result.results.insert(id, descriptor);
}

/// Notes a failure: its text in the record, its details in a blob beside it, as they may hold whole files. The blob is to be held until
/// the record is kept.
pub async fn add_error(
    store: &Store,
    record: &mut BuildHistoryRecord,
    error: &kiln_frontend::Error,
) -> Option<Blob> {
    let mut status = error.to_rpc();
    let program = serde_json::json!({ "pid": std::process::id(), "version": crate::version::line() });
    let stack = Any { type_url: STACK_TYPE_URL.to_owned(), value: program.to_string().into_bytes() };
    status.details.push(stack);
    let whole = status.encode_to_vec();
    status.details.clear();
    record.error = Some(status);
    let size = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    let content = store.clone();
    match store.pool().run(move || content.content().put(&whole)).await.and_then(|kept| kept) {
        Ok(blob) => {
            record.external_error = Some(Descriptor {
                media_type: ERROR_MEDIA_TYPE.to_owned(),
                digest: blob.digest().to_string(),
                size,
                annotations: BTreeMap::new(),
            });
            Some(blob)
        }
        Err(failure) => {
            tracing::warn!(build = record.r#ref, error = %failure, "the details of a failure could not be kept");
            None
        }
    }
}

/// Keeps a statement of how a result was made, and notes it. The blob is to be held until the record is kept.
///
/// # Errors
/// The store cannot take it.
pub async fn add_statement(
    store: &Store,
    record: &mut BuildHistoryRecord,
    statement: HistoryStatement,
) -> Result<Blob, kiln_frontend::Error> {
    let (content, json) = (store.clone(), statement.json.clone());
    let kept = store.pool().run(move || content.content().put(&json)).await;
    let blob = kept.and_then(|kept| kept).map_err(|error| kiln_frontend::Error::of(&error))?;
    let descriptor = Descriptor {
        media_type: IN_TOTO_MEDIA_TYPE.to_owned(),
        digest: blob.digest().to_string(),
        size: i64::try_from(statement.json.len()).unwrap_or(i64::MAX),
        annotations: BTreeMap::from([(
            PREDICATE_TYPE_ANNOTATION.to_owned(),
            statement.predicate_type.to_owned(),
        )]),
    };
    let result = match statement.id.as_str() {
        "" => record.result.get_or_insert_default(),
        id => record.results.entry(id.to_owned()).or_default(),
    };
    result.attestations.push(descriptor);
    Ok(blob)
}

/// A record for a build that starts now.
pub fn new_record(request: &crate::control::BuildRequest) -> BuildHistoryRecord {
    BuildHistoryRecord {
        r#ref: request.id.clone(),
        frontend: request.frontend.clone(),
        frontend_attrs: request.frontend_opts.clone(),
        exporters: request.exporters.clone(),
        created_at: Some(to_timestamp(SystemTime::now())),
        ..BuildHistoryRecord::default()
    }
}
