//! Where results go: files and directories of this host.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::filesync::BytesMessage;
use kiln_proto::fsutil_types::Packet;
use kiln_proto::prost::Message;
use kiln_spool::Spools;
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service as TowerService;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::fsync::{DirSink, DirSinkOptions, Existing, OwnerPolicy, Packets, ReceiveLimits, receive};
use crate::{handles, keys};

/// Opens the file that a result goes to, told what the exporter says about it. None: it is not wanted.
pub type OpenFile =
    Box<dyn Fn(BTreeMap<String, String>) -> std::io::Result<Option<Box<dyn TargetFile>>> + Send + Sync>;

/// Takes what a result's file has.
pub trait TargetFile: Write + Send {
    /// The file itself, if nothing was written yet: the daemon may write it from its beginning, if it is a plain one.
    fn handle(&self) -> Option<OwnedFd> {
        None
    }
}

impl TargetFile for std::io::Stdout {}

/// A file that was made for the result.
impl TargetFile for std::fs::File {
    fn handle(&self) -> Option<OwnedFd> {
        self.try_clone().ok().map(OwnedFd::from)
    }
}

/// Where a result goes.
pub enum Target {
    /// One file, such as an archive.
    File(OpenFile),
    /// A directory, made if it is not there.
    Dir {
        /// Where.
        path: PathBuf,
        /// Afterwards it holds the result and nothing else.
        delete: bool,
    },
}

/// Chunks of a file that wait to be written.
const WRITE_QUEUE: usize = 16;

/// `moby.filesync.v1.FileSend`. Its one method is declared with bytes of a file; for directories its messages are packets of the file
/// transfer, so it is served by hand.
#[derive(Clone)]
pub(super) struct Service {
    targets: Arc<HashMap<u32, Target>>,
    spools: Spools,
}

impl Service {
    pub(super) fn new(targets: Vec<(u32, Target)>, spools: Spools) -> Self {
        Self { targets: Arc::new(targets.into_iter().collect()), spools }
    }

    async fn take(self, request: Request<Streaming<Bytes>>) -> Result<Response<Answers>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let number = metadata.get(keys::EXPORTER_ID).and_then(|value| value.to_str().ok());
        let number = number.and_then(|text| text.parse().ok()).unwrap_or(0);
        match self.targets.get(&number) {
            None => Err(Status::unknown(format!("exporter {number} not found"))),
            Some(Target::File(open)) => take_file(open, &metadata, incoming),
            Some(Target::Dir { path, delete }) => {
                let all_at_once = metadata
                    .get_all(keys::EXPORTER_MULTI_PLATFORM)
                    .iter()
                    .any(|value| value.as_bytes() == b"1");
                if *delete && !all_at_once {
                    return Err(Status::unknown(
                        "local exporter mode=delete requires a BuildKit daemon with multi-platform local export support",
                    ));
                }
                take_dir(path.clone(), *delete, self.spools.clone(), incoming).await.map(Response::new)
            }
        }
    }
}

type Answers = BoxStream<'static, Result<Bytes, Status>>;

/// Writes a file as it comes. The answer has no messages: its end says that everything is written. Whoever got the file's handle sends
/// nothing but the end.
fn take_file(
    open: &OpenFile,
    metadata: &MetadataMap,
    mut incoming: Streaming<Bytes>,
) -> Result<Response<Answers>, Status> {
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for entry in metadata.keys() {
        if let tonic::metadata::KeyRef::Ascii(key) = entry
            && let Some(name) = key.as_str().strip_prefix(keys::EXPORTER_METADATA_PREFIX)
        {
            let values = metadata
                .get_all(key)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
            said.insert(name.to_string(), values.collect::<Vec<_>>().join(","));
        }
    }
    let failed = |error: std::io::Error| Status::unknown(error.to_string());
    let mut file =
        open(said).map_err(failed)?.ok_or_else(|| Status::already_exists("target already exists"))?;
    let handle = if metadata.contains_key(keys::HANDLES) { file.handle() } else { None };
    let (chunks, mut queue) = mpsc::channel::<Bytes>(WRITE_QUEUE);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(chunk) = queue.blocking_recv() {
            file.write_all(&chunk)?;
        }
        file.flush()
    });
    let answer = async move {
        while let Some(message) = incoming.next().await {
            let message =
                BytesMessage::decode(message?).map_err(|error| Status::internal(error.to_string()))?;
            // The writer is gone: it says why below.
            if chunks.send(message.data).await.is_err() {
                break;
            }
        }
        drop(chunks);
        match writing.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Status::unknown(error.to_string())),
            Err(_) => Err(Status::internal("writing the file panicked")),
        }
    };
    let mut answer = Response::new(ends_as(answer));
    if let Some(handle) = handle {
        offer(handle, answer.metadata_mut());
    }
    Ok(answer)
}

/// Offers the handle of a file, and says in the answer where. Without that the daemon sends what belongs into it.
fn offer(handle: OwnedFd, answer: &mut MetadataMap) {
    match handles::offer(handle) {
        Ok(name) => drop(answer.insert(keys::HANDLE_NAME, name.parse().expect("is ASCII"))),
        Err(error) => tracing::debug!(%error, "handle not offered"),
    }
}

async fn take_dir(
    path: PathBuf,
    delete: bool,
    spools: Spools,
    incoming: Streaming<Bytes>,
) -> Result<Answers, Status> {
    let root = tokio::task::spawn_blocking(move || open_dir(&path));
    let root = root.await.map_err(|error| Status::internal(error.to_string()))?;
    let root = root.map_err(|error| Status::unknown(format!("failed to open target directory: {error}")))?;
    let existing = if delete { Existing::Mirror } else { Existing::Merge };
    let options = DirSinkOptions {
        existing,
        owner: OwnerPolicy::Own,
        spread: true,
        without_digests: true,
        ..DirSinkOptions::new(spools)
    };
    let (sink, _) = DirSink::new(root, options);
    let (outgoing, packets) = mpsc::unbounded_channel::<Packets>();
    let incoming =
        incoming.map(|message| Packet::decode(message?).map_err(|error| Status::internal(error.to_string())));
    let transfer = async move {
        receive(incoming, outgoing, sink, ReceiveLimits::default(), |_, _| {}).await.map_err(Status::from)
    };
    let packets = UnboundedReceiverStream::new(packets)
        .flat_map(futures::stream::iter)
        .map(|packet| Ok(packet.encode_to_vec().into()));
    Ok(futures::stream::select(packets, ends_as(transfer)).boxed())
}

fn open_dir(path: &Path) -> std::io::Result<std::os::fd::OwnedFd> {
    std::fs::create_dir_all(path)?;
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// An answer without messages that fails if `future` does.
fn ends_as(future: impl Future<Output = Result<(), Status>> + Send + 'static) -> Answers {
    futures::stream::once(future).filter_map(|result| std::future::ready(result.err().map(Err))).boxed()
}

impl NamedService for Service {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl StreamingService<Bytes> for Service {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        self.clone().take(request).boxed()
    }
}

impl TowerService<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        async move {
            if request.uri().path() != "/moby.filesync.v1.FileSend/DiffCopy" {
                return Ok(Status::unimplemented("unknown method").into_http());
            }
            let limit = Some(MESSAGE_BYTES_MAX);
            let mut grpc = Grpc::new(Raw).apply_max_message_size_config(limit, limit);
            Ok(grpc.streaming(service, request).await)
        }
        .boxed()
    }
}

/// Messages as they are.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
