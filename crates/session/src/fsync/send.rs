//! The sender: tells what is there, then gives what is asked for.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kiln_proto::fsutil_types::packet::PacketType;
use kiln_proto::fsutil_types::{Packet, Stat};
use kiln_proto::prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::error::SyncError;
use super::stat::FileStat;
use super::{DATA_BYTES_MAX, QUEUE, error_packet, fin_packet};

/// Threads that read files. Reading waits for the disk; what it has in memory one thread could deliver.
const READERS: usize = 4;

/// Requests that wait for a reader, at most.
const REQUESTS: usize = 128;

/// Files to send.
pub trait FsSource: Send + Sync + 'static {
    /// Gives the metadata of all files, in the order of path components, directories before what is in them. Ends early when `emit`
    /// fails.
    fn walk(&self, emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>) -> Result<(), SyncError>;

    /// Opens a file that the walk gave. One that is not there any more is sent as empty.
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>>;
}

/// A file whose contents may be asked for.
struct Offered {
    path: String,
    size: i64,
}

/// Packets that go together: waking the connection costs more than a small file.
type Batch = Vec<Packet>;

/// Metadata of files that go together.
const STATS_PER_BATCH: usize = 32;

struct Sender<S> {
    source: S,
    offered: Mutex<HashMap<u32, Offered>>,
    outgoing: mpsc::Sender<Batch>,
    sent: Mutex<Box<dyn FnMut(u64, bool) + Send>>,
    total: std::sync::atomic::AtomicU64,
}

/// Sends a directory: returns packets for the receiver, and what ends when all is done. `progress` gets the bytes sent so far, and
/// whether these were the last.
pub fn send<I, S>(
    incoming: I,
    source: S,
    progress: impl FnMut(u64, bool) + Send + 'static,
) -> (BoxStream<'static, Packet>, JoinHandle<Result<(), SyncError>>)
where
    I: Stream<Item = Result<Packet, Status>> + Unpin + Send + 'static,
    S: FsSource,
{
    let (outgoing, packets) = mpsc::channel(QUEUE);
    let sender = Arc::new(Sender {
        source,
        offered: Mutex::default(),
        outgoing,
        sent: Mutex::new(Box::new(progress)),
        total: Default::default(),
    });
    let task = tokio::spawn(async move {
        let result = run(incoming, sender.clone()).await;
        if let Err(error) = &result {
            // The receiver may be gone.
            let _ = sender.outgoing.send(vec![error_packet(&error.chain())]).await;
        }
        sender.progress(0, true);
        result
    });
    (ReceiverStream::new(packets).flat_map(futures::stream::iter).boxed(), task)
}

async fn run<I, S>(mut incoming: I, sender: Arc<Sender<S>>) -> Result<(), SyncError>
where
    I: Stream<Item = Result<Packet, Status>> + Unpin + Send,
    S: FsSource,
{
    let (requests, queue) = mpsc::channel::<u32>(REQUESTS);
    let queue = Arc::new(Mutex::new(queue));
    let mut threads = tokio::task::JoinSet::new();
    threads.spawn_blocking({
        let sender = sender.clone();
        move || sender.walk()
    });
    for _ in 0..READERS {
        let (sender, queue) = (sender.clone(), queue.clone());
        threads.spawn_blocking(move || {
            loop {
                // Waiting with the lock held: the others wait for the same thing.
                let request = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                let Some(id) = request else { return Ok(()) };
                sender.send_file(id)?;
            }
        });
    }
    let requests = requests;
    let asked = async {
        loop {
            let packet = match incoming.next().await {
                None => return Err(SyncError::protocol("unexpected EOF")),
                Some(packet) => packet?,
            };
            match PacketType::try_from(packet.r#type) {
                Ok(PacketType::PacketReq) => {
                    requests.send(packet.id).await.map_err(|_| SyncError::protocol("transfer failed"))?;
                }
                Ok(PacketType::PacketFin) => return Ok(()),
                Ok(PacketType::PacketErr) => {
                    let message = String::from_utf8_lossy(&packet.data).into_owned();
                    return Err(SyncError::Peer { peer: "receiver", message });
                }
                _ => {
                    let kind = packet.r#type;
                    return Err(SyncError::protocol(format!("unexpected packet of type {kind}")));
                }
            }
        }
    };
    let first_failure = async {
        while let Some(result) = threads.join_next().await {
            match result {
                Ok(Err(error)) => return error,
                Ok(Ok(())) => {}
                Err(_) => return SyncError::protocol("sending thread panicked"),
            }
        }
        // All threads ended well: what the receiver says decides.
        std::future::pending().await
    };
    tokio::select! {
        biased;
        error = first_failure => Err(error),
        result = asked => {
            result?;
            sender.outgoing.send(vec![fin_packet()]).await.map_err(|_| SyncError::protocol("receiver is gone"))
        }
    }
}

impl<S: FsSource> Sender<S> {
    fn walk(&self) -> Result<(), SyncError> {
        let mut next = 0;
        let mut batch = Batch::new();
        self.source.walk(&mut |stat| {
            if stat.mode.has_contents() {
                let offered = Offered { path: stat.path.clone(), size: stat.size };
                self.offered.lock().unwrap_or_else(PoisonError::into_inner).insert(next, offered);
            }
            next += 1;
            batch.push(Packet { stat: Some(Stat::from(&stat)), ..Default::default() });
            if batch.len() < STATS_PER_BATCH { Ok(()) } else { self.put(std::mem::take(&mut batch)) }
        })?;
        batch.push(Packet::default());
        self.put(batch)
    }

    fn send_file(&self, id: u32) -> Result<(), SyncError> {
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let offered = offered.ok_or_else(|| SyncError::protocol(format!("invalid file id {id}")))?;
        let data =
            |data: Bytes| Packet { r#type: PacketType::PacketData as i32, id, data, ..Default::default() };
        let mut batch = Batch::new();
        let failed = |error| SyncError::File { action: "read", path: offered.path.clone(), source: error };
        match self.source.open(&offered.path) {
            Ok(mut file) => {
                // One byte more than there should be tells the end without another round.
                let mut expected = (offered.size.max(0) as u64).saturating_add(1);
                loop {
                    let length = usize::try_from(expected).unwrap_or(usize::MAX).clamp(1, DATA_BYTES_MAX);
                    let mut piece = Vec::with_capacity(length);
                    (&mut file).take(length as u64).read_to_end(&mut piece).map_err(failed)?;
                    let read = piece.len();
                    if read > 0 {
                        batch.push(data(piece.into()));
                    }
                    if read < length {
                        break;
                    }
                    self.put(std::mem::take(&mut batch))?;
                    expected = expected.saturating_sub(read as u64).max(DATA_BYTES_MAX as u64);
                }
            }
            // It vanished, or it is a socket: nothing was ever in it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {}
            Err(error) => {
                return Err(SyncError::File { action: "open", path: offered.path.clone(), source: error });
            }
        }
        batch.push(data(Bytes::new()));
        self.put(batch)
    }

    fn put(&self, batch: Batch) -> Result<(), SyncError> {
        let length = batch.iter().map(Packet::encoded_len).sum();
        self.outgoing.blocking_send(batch).map_err(|_| SyncError::protocol("receiver is gone"))?;
        self.progress(length, false);
        Ok(())
    }

    fn progress(&self, length: usize, last: bool) {
        let mut callback = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.total.fetch_add(length as u64, std::sync::atomic::Ordering::Relaxed);
        callback(before + length as u64, last);
    }
}
