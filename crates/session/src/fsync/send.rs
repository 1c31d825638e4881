//! The sender: tells what is there, then gives what is asked for.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kiln_proto::fsutil_types::packet::PacketType;
use kiln_proto::fsutil_types::{Packet, Stat};
use kiln_proto::prost::Message;
use kiln_spool::Spools;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::error::SyncError;
use super::lists::list_error;
use super::offers::Offers;
use super::stat::FileStat;
use super::{
    BATCH_BYTES, BATCH_PACKETS, BATCHES_WAITING, DATA_BYTES_MAX, error_packet, fin_packet, next_batch,
};

/// Threads that read files. Reading waits for the disk; what it has in memory one thread could deliver.
const READERS: usize = 4;

/// Requests that a reader takes at once: what it reads of small files goes out together.
const REQUESTS_AT_ONCE: usize = 32;

/// Files to send.
pub trait FsSource: Send + Sync + 'static {
    /// Gives the metadata of all files, in the order of path components, directories before what is in them. Ends early when `emit`
    /// fails.
    fn walk(&self, emit: &mut dyn FnMut(FileStat) -> Result<(), SyncError>) -> Result<(), SyncError>;

    /// Opens a file that the walk gave. One that is not there any more is sent as empty.
    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>>;
}

/// Packets that go together: waking the connection costs more than a small file. It is sent when it is full.
#[derive(Default)]
struct Batch {
    packets: Vec<Packet>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, packet: Packet) {
        self.bytes += packet.data.len();
        self.packets.push(packet);
    }

    fn is_full(&self) -> bool {
        self.packets.len() >= BATCH_PACKETS || self.bytes >= BATCH_BYTES
    }
}

struct Sender<S> {
    source: S,
    offers: Mutex<Offers>,
    spools: Spools,
    outgoing: mpsc::Sender<Vec<Packet>>,
    sent: Mutex<Box<dyn FnMut(u64, bool) + Send>>,
    total: std::sync::atomic::AtomicU64,
}

/// Sends a directory: returns packets for the receiver, and what ends when all is done. What may be asked for is in a spool of `spools`.
/// `progress` gets the bytes sent so far, and whether these were the last.
pub fn send<I, S>(
    incoming: I,
    source: S,
    spools: Spools,
    progress: impl FnMut(u64, bool) + Send + 'static,
) -> (BoxStream<'static, Packet>, JoinHandle<Result<(), SyncError>>)
where
    I: Stream<Item = Result<Packet, Status>> + Unpin + Send + 'static,
    S: FsSource,
{
    let (outgoing, packets) = mpsc::channel(BATCHES_WAITING);
    let sender = Arc::new(Sender {
        source,
        offers: Mutex::new(Offers::new(&spools)),
        spools,
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

async fn run<I, S>(incoming: I, sender: Arc<Sender<S>>) -> Result<(), SyncError>
where
    I: Stream<Item = Result<Packet, Status>> + Unpin + Send,
    S: FsSource,
{
    let mut incoming = incoming.fuse();
    let (requests, queue) = mpsc::channel::<Vec<u32>>(BATCHES_WAITING);
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
                let ids = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
                let Some(ids) = ids else { return Ok(()) };
                sender.send_files(ids)?;
            }
        });
    }
    let requests = requests;
    let asked = async {
        loop {
            let Some((batch, stream)) = next_batch(&mut incoming).await else {
                return Err(SyncError::protocol("unexpected EOF"));
            };
            let mut ids = Vec::new();
            let mut last = false;
            for packet in batch {
                match PacketType::try_from(packet.r#type) {
                    Ok(PacketType::PacketReq) => ids.push(packet.id),
                    Ok(PacketType::PacketFin) => last = true,
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
            // Nobody waits for files any more after the last packet.
            if last {
                return Ok(());
            }
            stream?;
            for ids in ids.chunks(REQUESTS_AT_ONCE) {
                requests.send(ids.to_vec()).await.map_err(|_| SyncError::protocol("transfer failed"))?;
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

/// The next bytes of a file, `left` of which were announced and not read yet. Fewer than `most`: the file has ended.
fn read_piece(file: &mut dyn Read, most: usize, left: usize) -> io::Result<Vec<u8>> {
    let mut piece = vec![0; most];
    let mut length = 0;
    while length < most {
        match file.read(&mut piece[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // All that was announced came, and nothing of what there was more room for.
        if length == left {
            break;
        }
    }
    piece.truncate(length);
    Ok(piece)
}

impl<S: FsSource> Sender<S> {
    fn walk(&self) -> Result<(), SyncError> {
        let mut batch = Batch::default();
        self.source.walk(&mut |stat| {
            let offered = stat.mode.has_contents().then_some((stat.path.as_str(), stat.size));
            if !self.offers(|offers| offers.push(offered))? {
                return Err(SyncError::Limit { what: "files", limit: u32::MAX.into() });
            }
            batch.push(Packet { stat: Some(Stat::from(stat)), ..Default::default() });
            if batch.is_full() { self.put(&mut batch) } else { Ok(()) }
        })?;
        batch.push(Packet::default());
        self.put(&mut batch)
    }

    fn offers<T>(&self, f: impl FnOnce(&mut Offers) -> io::Result<T>) -> Result<T, SyncError> {
        f(&mut self.offers.lock().unwrap_or_else(PoisonError::into_inner))
            .map_err(|error| list_error(&self.spools, error))
    }

    fn send_files(&self, ids: Vec<u32>) -> Result<(), SyncError> {
        let mut batch = Batch::default();
        for id in ids {
            self.send_file(id, &mut batch)?;
            if batch.is_full() {
                self.put(&mut batch)?;
            }
        }
        self.put(&mut batch)
    }

    /// Reads a file into the batch, and sends the batch whenever the file fills it.
    fn send_file(&self, id: u32, batch: &mut Batch) -> Result<(), SyncError> {
        let offered = self.offers(|offers| offers.take(id))?;
        let offered = offered.ok_or_else(|| SyncError::protocol(format!("invalid file id {id}")))?;
        let data =
            |data: Bytes| Packet { r#type: PacketType::PacketData as i32, id, data, ..Default::default() };
        let failed = |error| SyncError::File { action: "read", path: offered.path.clone(), source: error };
        match self.source.open(&offered.path) {
            Ok(mut file) => {
                let mut left = usize::try_from(offered.size).unwrap_or(0);
                loop {
                    // One byte more than there should be tells the end without another round.
                    let most = if left == 0 { DATA_BYTES_MAX } else { DATA_BYTES_MAX.min(left + 1) };
                    let piece = read_piece(&mut file, most, left).map_err(failed)?;
                    let read = piece.len();
                    if read > 0 {
                        batch.push(data(piece.into()));
                    }
                    if read < most {
                        break;
                    }
                    self.put(batch)?;
                    left = left.saturating_sub(read);
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
        Ok(())
    }

    /// Sends what was gathered, and empties it.
    fn put(&self, batch: &mut Batch) -> Result<(), SyncError> {
        let Batch { packets, .. } = std::mem::take(batch);
        if packets.is_empty() {
            return Ok(());
        }
        let length = packets.iter().map(Packet::encoded_len).sum();
        self.outgoing.blocking_send(packets).map_err(|_| SyncError::protocol("receiver is gone"))?;
        self.progress(length, false);
        Ok(())
    }

    fn progress(&self, length: usize, last: bool) {
        let mut callback = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.total.fetch_add(length as u64, std::sync::atomic::Ordering::Relaxed);
        callback(before + length as u64, last);
    }
}
