//! The receiver: takes what a sender tells, asks for contents, hands them to a sink.
//!
//! The connection's task only sorts packets. One thread feeds the sink with metadata in order, a few others write contents, so that
//! small files are made in parallel. What comes together is handed on together. Only so many files are asked for at once
//! ([`ASKED_MAX`]); the others that are wanted wait in a spool, a few bytes each. All other queues are bounded: nobody who waits holds up what
//! he waits for.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use kiln_proto::fsutil_types::Packet;
use kiln_proto::fsutil_types::packet::PacketType;
use kiln_proto::prost::Message;
use kiln_spool::Spools;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::bits::Bits;
use super::error::SyncError;
use super::lists::{Queue, list_error};
use super::order::Validator;
use super::stat::FileStat;
use super::{BATCHES_WAITING, error_packet, fin_packet, next_batch};

/// Threads that write contents. Each has directories of its own: two that make files in one directory wait for its lock.
const WRITERS: usize = 2;

/// A bit for each file says which.
const _: () = assert!(WRITERS == 2);

/// Files that are asked for and not complete, at most.
const ASKED_MAX: usize = 4096;

/// Files that one writer has open at once, at most. Senders work on four or so.
const OPEN_FILES_MAX: usize = 128;

/// Bytes of one DATA packet that are accepted; with the queues of batches it bounds what waits in memory.
const PACKET_BYTES_MAX: usize = 1 << 20;

/// What a sink fails with.
pub type SinkError = SyncError;

/// Where received files go.
pub trait FsSink: Send + 'static {
    /// Where lists of its files go that are too long for memory.
    fn spools(&self) -> Spools;

    /// Takes one file's metadata. Called on one thread, in the order of path components; the path is clean, relative, and below directories
    /// that came before. What a hard link is said to lead to may be anything.
    fn entry(&mut self, stat: FileStat) -> Result<Want, SinkError>;

    /// Where the contents go that [`FsSink::entry`] wanted; called when they are about to be asked for, in the same order.
    fn open(&mut self, wanted: Wanted) -> Result<Box<dyn ContentWriter>, SinkError>;

    /// Called once after all metadata and all contents came; not if the transfer failed.
    fn finish(&mut self) -> Result<(), SinkError>;
}

/// Whether a file's contents are wanted.
pub enum Want {
    /// No.
    Nothing,
    /// Yes; only for files whose mode says that they have contents.
    Content(Wanted),
}

/// What a sink calls a file whose contents it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(pub u64);

/// Takes one file's contents, on a thread of its own. Dropped without `finish` when the transfer fails.
pub trait ContentWriter: Send {
    /// Takes the next bytes.
    fn write(&mut self, data: &[u8]) -> Result<(), SinkError>;

    /// There are no more.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}

/// How much is taken from a sender.
#[derive(Debug, Clone, Copy)]
pub struct ReceiveLimits {
    /// Files of one transfer.
    pub entries_max: u64,
    /// Bytes of one path.
    pub path_bytes_max: usize,
    /// Bytes of all contents.
    pub total_bytes_max: u64,
}

impl Default for ReceiveLimits {
    fn default() -> Self {
        Self { entries_max: 16 << 20, path_bytes_max: 4096, total_bytes_max: u64::MAX }
    }
}

enum Entry {
    Stat(u32, Writer, FileStat),
    /// All were listed. Without this the transfer was broken off.
    End,
}

/// Which of the writing threads: one bit for each file says it.
type Writer = bool;

/// The writer of the directory that has `path`.
fn writer_of(path: &str) -> Writer {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let mut hasher = DefaultHasher::new();
    dir.hash(&mut hasher);
    hasher.finish() % WRITERS as u64 == 1
}

enum Content {
    Start(u32, Box<dyn ContentWriter>),
    Data(u32, Bytes),
}

/// What the threads and the task know of each other.
#[derive(Default)]
struct Progress {
    state: Mutex<State>,
    /// More files may be asked for, none is asked for any more, or the transfer stopped.
    room: Notify,
    failed: CancellationToken,
}

#[derive(Default)]
struct State {
    /// Files that are asked for and not complete.
    pending: usize,
    error: Option<SyncError>,
    stopped: bool,
    /// The sink has everything.
    done: bool,
}

impl Progress {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first failure counts.
    fn fail(&self, error: SyncError) {
        self.with(|state| {
            state.stopped = true;
            state.error.get_or_insert(error);
        });
        self.room.notify_one();
        self.failed.cancel();
    }
}

/// Stops the threads when the task goes, for whatever reason.
struct StopOnDrop(Arc<Progress>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.with(|state| state.stopped = true);
        self.0.room.notify_one();
    }
}

/// Packets for the sender that go together.
pub type Packets = Vec<Packet>;

/// Receives a directory. `outgoing` takes packets for the sender, in order; `progress` gets the bytes that came so far, and whether
/// these were the last.
///
/// When it returns, no thread touches the sink any more. When it is dropped before, the threads end soon after.
pub async fn receive<I, S>(
    incoming: I,
    outgoing: mpsc::UnboundedSender<Packets>,
    sink: S,
    limits: ReceiveLimits,
    mut progress: impl FnMut(u64, bool) + Send,
) -> Result<(), SyncError>
where
    I: Stream<Item = Result<Packet, Status>> + Unpin + Send,
    S: FsSink,
{
    let shared = Arc::new(Progress::default());
    let stop = StopOnDrop(shared.clone());
    let (entries, entry_receiver) = mpsc::channel(BATCHES_WAITING);
    let (contents, content_receivers): (Vec<_>, Vec<_>) =
        (0..WRITERS).map(|_| mpsc::channel(BATCHES_WAITING)).unzip();
    let mut threads: Vec<JoinHandle<()>> = content_receivers
        .into_iter()
        .map(|receiver| {
            let shared = shared.clone();
            tokio::task::spawn_blocking(move || write_contents(receiver, &shared))
        })
        .collect();
    threads.push({
        let (shared, contents, outgoing) = (shared.clone(), contents.clone(), outgoing.clone());
        tokio::task::spawn_blocking(move || take_entries(entry_receiver, sink, &contents, &outgoing, &shared))
    });

    let mut sorter = Sorter {
        entries: Some(entries),
        contents,
        validator: Validator::new(limits),
        limits,
        writers: Bits::default(),
        total: 0,
    };
    let mut incoming = incoming.fuse();
    let mut bytes = 0;
    let result = loop {
        let batch = tokio::select! {
            biased;
            () = shared.failed.cancelled() => break Err(SyncError::protocol("transfer failed")),
            batch = next_batch(&mut incoming) => batch,
        };
        let Some((batch, stream)) = batch else { break Err(SyncError::protocol("unexpected EOF")) };
        bytes += batch.iter().map(|packet| packet.encoded_len() as u64).sum::<u64>();
        progress(bytes, false);
        let step = tokio::select! {
            biased;
            step = sorter.take(batch) => step,
            () = shared.failed.cancelled() => break Err(SyncError::protocol("transfer failed")),
        };
        match step {
            Ok(true) => {
                if let Err(status) = stream {
                    break Err(status.into());
                }
            }
            Ok(false) if shared.with(|state| state.done) => break Ok(()),
            Ok(false) => break Err(SyncError::protocol("unexpected FIN")),
            Err(error) => break Err(error),
        }
    };
    progress(bytes, true);

    // A transfer that went well has told so by FIN: the threads are done. One that did not stops them.
    if result.is_err() {
        drop(stop);
    }
    drop(sorter);
    for thread in threads {
        if thread.await.is_err() {
            shared.fail(SyncError::protocol("receiving thread panicked"));
        }
    }
    let error = match (shared.with(|state| state.error.take()), result) {
        // What a thread met is the reason, whatever came of it.
        (Some(error), _) | (None, Err(error)) => error,
        (None, Ok(())) => return Ok(()),
    };
    // The sender may be gone.
    let _ = outgoing.send(vec![error_packet(&error.chain())]);
    Err(error)
}

/// Sorts packets to the threads.
struct Sorter {
    entries: Option<mpsc::Sender<Vec<Entry>>>,
    contents: Vec<mpsc::Sender<Vec<Content>>>,
    validator: Validator,
    limits: ReceiveLimits,
    /// For each file that was listed, its writer.
    writers: Bits,
    total: u64,
}

/// What of a batch goes where.
#[derive(Default)]
struct Sorted {
    entries: Vec<Entry>,
    contents: [Vec<Content>; WRITERS],
    /// It has the last packet of all.
    last: bool,
}

impl Sorter {
    /// False: that was the last batch.
    async fn take(&mut self, batch: Vec<Packet>) -> Result<bool, SyncError> {
        let gone = || SyncError::protocol("transfer failed");
        let mut sorted = Sorted::default();
        for packet in batch {
            self.sort(packet, &mut sorted)?;
        }
        if !sorted.entries.is_empty() {
            let listed = matches!(sorted.entries.last(), Some(Entry::End));
            let entries = self.entries.as_ref().expect("`sort` gives no files after the last one");
            entries.send(sorted.entries).await.map_err(|_| gone())?;
            if listed {
                self.entries = None;
            }
        }
        for (writer, contents) in self.contents.iter().zip(sorted.contents) {
            if !contents.is_empty() {
                writer.send(contents).await.map_err(|_| gone())?;
            }
        }
        Ok(!sorted.last)
    }

    fn sort(&mut self, packet: Packet, sorted: &mut Sorted) -> Result<(), SyncError> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::PacketStat) => {
                if self.entries.is_none() || matches!(sorted.entries.last(), Some(Entry::End)) {
                    return Err(SyncError::protocol("file after the last one"));
                }
                let Some(stat) = packet.stat else {
                    sorted.entries.push(Entry::End);
                    return Ok(());
                };
                let stat = FileStat::from(stat);
                self.validator.check(&stat)?;
                let (id, writer) = (self.writers.len(), writer_of(&stat.path));
                if !self.writers.push(writer) {
                    return Err(SyncError::Limit { what: "files", limit: u32::MAX.into() });
                }
                sorted.entries.push(Entry::Stat(id, writer, stat));
            }
            Ok(PacketType::PacketData) => {
                self.total = self.total.saturating_add(packet.data.len() as u64);
                if self.total > self.limits.total_bytes_max {
                    return Err(SyncError::Limit { what: "file bytes", limit: self.limits.total_bytes_max });
                }
                if packet.data.len() > PACKET_BYTES_MAX {
                    return Err(SyncError::Limit { what: "packet bytes", limit: PACKET_BYTES_MAX as u64 });
                }
                let writer: Writer = self.writers.get(packet.id).ok_or_else(|| unasked(packet.id))?;
                sorted.contents[usize::from(writer)].push(Content::Data(packet.id, packet.data));
            }
            Ok(PacketType::PacketErr) => {
                let message = String::from_utf8_lossy(&packet.data).into_owned();
                return Err(SyncError::Peer { peer: "sender", message });
            }
            Ok(PacketType::PacketFin) => sorted.last = true,
            Ok(PacketType::PacketReq) | Err(_) => {
                return Err(SyncError::protocol(format!("unexpected packet of type {}", packet.r#type)));
            }
        }
        Ok(())
    }
}

/// Feeds the sink and asks for what it wants.
struct Asker<'a, S> {
    sink: S,
    contents: &'a [mpsc::Sender<Vec<Content>>],
    outgoing: &'a mpsc::UnboundedSender<Packets>,
    progress: &'a Progress,
    /// What is wanted and not asked for yet.
    later: Queue<LATER_BYTES>,
    spools: Spools,
}

/// What the sink calls a file, its number and its writer.
const LATER_BYTES: usize = 8 + 4 + 1;

fn later(wanted: Wanted, id: u32, writer: Writer) -> [u8; LATER_BYTES] {
    let mut record = [0; LATER_BYTES];
    record[..8].copy_from_slice(&wanted.0.to_le_bytes());
    record[8..12].copy_from_slice(&id.to_le_bytes());
    record[12] = writer.into();
    record
}

/// What [`later`] was given.
fn from_later(record: &[u8; LATER_BYTES]) -> (Wanted, u32, Writer) {
    let (wanted, rest) = record.split_first_chunk().expect("is longer");
    let (id, writer) = rest.split_first_chunk().expect("is longer");
    (Wanted(u64::from_le_bytes(*wanted)), u32::from_le_bytes(*id), writer[0] == 1)
}

fn take_entries(
    mut entries: mpsc::Receiver<Vec<Entry>>,
    sink: impl FsSink,
    contents: &[mpsc::Sender<Vec<Content>>],
    outgoing: &mpsc::UnboundedSender<Packets>,
    progress: &Progress,
) {
    let spools = sink.spools();
    let mut asker = Asker { sink, contents, outgoing, progress, later: Queue::new(&spools), spools };
    match asker.run(&mut entries) {
        Err(error) => progress.fail(error),
        Ok(true) => {
            progress.with(|state| state.done = true);
            // The sender may be gone, which the connection's task sees.
            let _ = outgoing.send(vec![fin_packet()]);
        }
        Ok(false) => {}
    }
}

impl<S: FsSink> Asker<'_, S> {
    /// False: broken off.
    fn run(&mut self, entries: &mut mpsc::Receiver<Vec<Entry>>) -> Result<bool, SinkError> {
        let runtime = Handle::current();
        let mut listed = false;
        while !listed || !self.later.is_empty() || self.pending() > 0 {
            let waiting = listed || !self.later.is_empty();
            let batch = runtime.block_on(async {
                tokio::select! {
                    biased;
                    batch = entries.recv(), if !listed => Some(batch),
                    () = self.progress.room.notified(), if waiting => None,
                }
            });
            match batch {
                Some(Some(batch)) => listed = self.take(batch)?,
                Some(None) => return Ok(false),
                None => {}
            }
            if self.progress.with(|state| state.stopped) || !self.ask()? {
                return Ok(false);
            }
        }
        self.sink.finish()?;
        Ok(true)
    }

    fn pending(&self) -> usize {
        self.progress.with(|state| state.pending)
    }

    /// True: these were the last.
    fn take(&mut self, batch: Vec<Entry>) -> Result<bool, SinkError> {
        for entry in batch {
            let Entry::Stat(id, writer, stat) = entry else { return Ok(true) };
            let has_contents = stat.mode.has_contents();
            if let Want::Content(wanted) = self.sink.entry(stat)? {
                if !has_contents {
                    return Err(SyncError::protocol("contents wanted of what has none"));
                }
                let record = later(wanted, id, writer);
                self.later.push(record).map_err(|error| list_error(&self.spools, error))?;
            }
        }
        Ok(false)
    }

    /// Asks for what there is room for, after it has told the writers what will come. False: somebody is gone.
    fn ask(&mut self) -> Result<bool, SinkError> {
        let pending = self.pending();
        if self.later.is_empty() || pending > ASKED_MAX / 2 {
            return Ok(true);
        }
        let mut starts: [Vec<Content>; WRITERS] = Default::default();
        let mut requests = Packets::new();
        let records = self.later.take(ASKED_MAX - pending);
        for record in records.map_err(|error| list_error(&self.spools, error))? {
            let (wanted, id, writer) = from_later(&record);
            starts[usize::from(writer)].push(Content::Start(id, self.sink.open(wanted)?));
            requests.push(Packet { r#type: PacketType::PacketReq as i32, id, ..Default::default() });
        }
        self.progress.with(|state| state.pending += requests.len());
        let mut told = self.contents.iter().zip(starts);
        let all_told = told.all(|(writer, starts)| starts.is_empty() || writer.blocking_send(starts).is_ok());
        Ok(all_told && self.outgoing.send(requests).is_ok())
    }
}

fn write_contents(mut contents: mpsc::Receiver<Vec<Content>>, progress: &Progress) {
    let mut waiting: HashMap<u32, (Box<dyn ContentWriter>, bool)> = HashMap::new();
    let mut open = 0;
    // True: the file is complete.
    let mut step = |content: Content| -> Result<bool, SyncError> {
        match content {
            Content::Start(id, writer) => {
                waiting.insert(id, (writer, false));
                Ok(false)
            }
            Content::Data(id, data) if data.is_empty() => {
                let (writer, started) = waiting.remove(&id).ok_or_else(|| unasked(id))?;
                open -= usize::from(started);
                writer.finish()?;
                Ok(true)
            }
            Content::Data(id, data) => {
                let (writer, started) = waiting.get_mut(&id).ok_or_else(|| unasked(id))?;
                if !*started {
                    *started = true;
                    open += 1;
                    if open > OPEN_FILES_MAX {
                        return Err(SyncError::Limit { what: "files at once", limit: OPEN_FILES_MAX as u64 });
                    }
                }
                writer.write(&data)?;
                Ok(false)
            }
        }
    };
    while let Some(batch) = contents.blocking_recv() {
        let mut complete = 0;
        for content in batch {
            match step(content) {
                Ok(whole) => complete += usize::from(whole),
                Err(error) => return progress.fail(error),
            }
        }
        if complete > 0 {
            let pending = progress.with(|state| {
                state.pending -= complete;
                state.pending
            });
            if pending <= ASKED_MAX / 2 {
                progress.room.notify_one();
            }
        }
        if progress.failed.is_cancelled() {
            return;
        }
    }
}

fn unasked(id: u32) -> SyncError {
    SyncError::protocol(format!("invalid file request {id}"))
}
