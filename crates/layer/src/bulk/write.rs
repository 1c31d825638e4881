//! Writing.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use super::buffer::{ALIGN, Buffer};
use super::{DIRECT_FROM_BYTES, PIECE_BYTES, PIECES_WAITING};

/// After so many direct bytes the disk has shown what it can.
const TRIED_BYTES: u64 = 32 << 20;

/// A disk that takes longer for them is better written to by way of memory (a quarter of a gigabyte a second).
const TRIED_TIME_MAX: Duration = Duration::from_millis(128);

/// After so many bytes that went to memory the disk begins to write, so that a sync at the end has little left to do.
const WRITE_BEHIND_BYTES: u64 = 32 << 20;

/// Writes a file front to back. Call [`BulkWriter::finish`]; before that anything may be missing.
#[derive(Debug)]
pub struct BulkWriter {
    file: Arc<File>,
    /// Being filled; none before the first byte and while there is none to be had.
    buffer: Option<Box<Buffer>>,
    disk: Option<Disk>,
    /// Where the next byte goes.
    offset: u64,
}

/// The thread that writes.
#[derive(Debug)]
struct Disk {
    full: Option<SyncSender<Piece>>,
    empty: Receiver<Box<Buffer>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    buffers: usize,
}

/// Bytes on their way to the disk.
struct Piece {
    bytes: Box<Buffer>,
    offset: u64,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffer").field("len", &self.filled().len()).finish()
    }
}

impl BulkWriter {
    /// Writes to `file`, from its beginning.
    pub fn new(file: File) -> Self {
        Self { file: Arc::new(file), buffer: None, disk: None, offset: 0 }
    }

    /// How many bytes were written or skipped.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Leaves the next `bytes` as they are in the file and goes on behind them. What is there is written by others, before or after this
    /// writer: the file's mode changes while it writes.
    pub fn skip(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(mut last) = self.buffer.take().filter(|last| !last.filled().is_empty()) {
            self.buffer = Some(match self.disk {
                // Perhaps nothing else comes for which a thread would be worth while.
                None => {
                    self.file.write_all_at(last.filled(), self.begin_of(&last))?;
                    last.clear();
                    last
                }
                Some(_) => self.hand_on(last)?,
            });
        }
        self.offset += bytes;
        Ok(())
    }

    /// The file itself, as long as nothing was written: whoever writes it then does so in place of this writer.
    pub fn handle(&self) -> Option<OwnedFd> {
        if self.offset == 0 { self.file.try_clone().ok().map(OwnedFd::from) } else { None }
    }

    /// Writes what is left. The bytes are the file's then, not yet durable.
    pub fn finish(mut self) -> io::Result<File> {
        let last = self.buffer.take();
        match self.disk.take() {
            None => {
                if let Some(last) = last {
                    self.file.write_all_at(last.filled(), self.begin_of(&last))?;
                }
            }
            Some(disk) => {
                let sent = last.is_none_or(|last| {
                    let offset = self.begin_of(&last);
                    disk.send(Piece { bytes: last, offset })
                });
                disk.end()?;
                if !sent {
                    return Err(gone());
                }
            }
        }
        Arc::into_inner(self.file).ok_or_else(gone)
    }

    /// Where in the file the bytes of the buffer that is being filled begin.
    fn begin_of(&self, buffer: &Buffer) -> u64 {
        self.offset - buffer.filled().len() as u64
    }

    /// Hands a buffer on and gets another one.
    fn hand_on(&mut self, full: Box<Buffer>) -> io::Result<Box<Buffer>> {
        let piece = Piece { offset: self.begin_of(&full), bytes: full };
        if self.disk.is_none() {
            self.disk = Some(Disk::start(Arc::clone(&self.file))?);
        }
        let disk = self.disk.as_mut().expect("started above");
        let next = if disk.send(piece) { disk.next() } else { None };
        match next {
            Some(next) => Ok(next),
            // It ended before its time: it says why.
            None => Err(self.disk.take().expect("started above").end().err().unwrap_or_else(gone)),
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the writing thread is gone")
}

impl Write for BulkWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut buffer = self.buffer.take().unwrap_or_else(|| Box::new(Buffer::new(PIECE_BYTES)));
        // Wherever a piece begins, it ends where the next one may go past memory.
        let end = PIECE_BYTES - (self.begin_of(&buffer) % ALIGN as u64) as usize;
        let room = end - buffer.filled().len();
        let taken = buffer.take(&data[..data.len().min(room)]);
        self.offset += taken as u64;
        self.buffer = Some(if taken == room { self.hand_on(buffer)? } else { buffer });
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk {
    fn start(file: Arc<File>) -> io::Result<Self> {
        let (full, queue) = sync_channel::<Piece>(PIECES_WAITING);
        let (back, empty) = sync_channel(PIECES_WAITING + 1);
        let work = move || {
            let mut target = Target::new(&file);
            let written = queue.into_iter().try_for_each(|Piece { mut bytes, offset }| {
                target.write(bytes.filled(), offset)?;
                bytes.clear();
                // The writer needs no more buffers.
                let _ = back.try_send(bytes);
                Ok(())
            });
            let ended = target.end();
            written.and(ended)
        };
        let thread = Some(std::thread::Builder::new().name("kiln-disk".into()).spawn(work)?);
        Ok(Self { full: Some(full), empty, thread, buffers: 1 })
    }

    /// Hands a piece on; false: the thread is gone.
    fn send(&self, piece: Piece) -> bool {
        self.full.as_ref().is_some_and(|queue| queue.send(piece).is_ok())
    }

    /// A buffer to fill; none: the thread is gone.
    fn next(&mut self) -> Option<Box<Buffer>> {
        match self.empty.try_recv() {
            Ok(buffer) => Some(buffer),
            Err(TryRecvError::Empty) if self.buffers <= PIECES_WAITING => {
                self.buffers += 1;
                Some(Box::new(Buffer::new(PIECE_BYTES)))
            }
            Err(_) => self.empty.recv().ok(),
        }
    }

    /// Waits until all is written that was handed on.
    fn end(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        self.full = None;
        self.thread.take().map_or(Ok(()), |thread| thread.join().map_err(|_| gone())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Given up: what became of it does not matter, but nobody writes any more afterwards.
        let _ = self.join();
    }
}

/// The file as the thread sees it.
struct Target<'a> {
    file: &'a File,
    /// Bytes that went there.
    bytes: u64,
    way: Way,
    behind: u64,
    writeback: Option<JoinHandle<()>>,
}

/// How the next piece goes.
enum Way {
    /// By way of memory, as long as the file is small.
    Small,
    /// To the disk; how many bytes went so, and how long they took.
    Direct(u64, Duration),
    /// By way of memory.
    Memory,
}

impl<'a> Target<'a> {
    fn new(file: &'a File) -> Self {
        Self { file, bytes: 0, way: Way::Small, behind: 0, writeback: None }
    }

    fn write(&mut self, piece: &[u8], offset: u64) -> io::Result<()> {
        if matches!(self.way, Way::Small) && self.bytes >= DIRECT_FROM_BYTES {
            self.way = match set_direct(self.file, true) {
                Ok(()) => Way::Direct(0, Duration::ZERO),
                Err(_) => Way::Memory,
            };
        }
        match &mut self.way {
            Way::Direct(bytes, time) if is_aligned(piece, offset) => {
                let begun = Instant::now();
                let written = self.file.write_all_at(piece, offset);
                *time += begun.elapsed();
                *bytes += piece.len() as u64;
                let slow = *bytes >= TRIED_BYTES && *time > TRIED_TIME_MAX * (*bytes / TRIED_BYTES) as u32;
                match written {
                    Ok(()) if slow => self.by_memory()?,
                    Ok(()) => {}
                    // The flag was taken, the bytes are not.
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                        self.by_memory()?;
                        self.file.write_all_at(piece, offset)?;
                    }
                    Err(error) => return Err(error),
                }
            }
            // The last one, or one at the edge of what is skipped: this one alone goes by way of memory.
            Way::Direct(..) => {
                set_direct(self.file, false)?;
                self.file.write_all_at(piece, offset)?;
                set_direct(self.file, true)?;
            }
            Way::Small | Way::Memory => self.file.write_all_at(piece, offset)?,
        }
        self.bytes += piece.len() as u64;
        if matches!(self.way, Way::Memory) {
            self.write_behind();
        }
        Ok(())
    }

    fn by_memory(&mut self) -> io::Result<()> {
        self.way = Way::Memory;
        self.behind = self.bytes;
        set_direct(self.file, false)
    }

    fn write_behind(&mut self) {
        if self.bytes - self.behind < WRITE_BEHIND_BYTES
            || self.writeback.as_ref().is_some_and(|thread| !thread.is_finished())
        {
            return;
        }
        let Ok(file) = self.file.try_clone() else { return };
        // Only a head start: who needs the bytes durable syncs, and gets the errors.
        self.writeback = std::thread::Builder::new()
            .name("kiln-writeback".into())
            .spawn(move || drop(file.sync_data()))
            .ok();
        self.behind = self.bytes;
    }

    fn end(self) -> io::Result<()> {
        match self.way {
            // Others who write to it know nothing of aligned pieces.
            Way::Direct(..) => set_direct(self.file, false),
            Way::Small | Way::Memory => Ok(()),
        }
    }
}

fn is_aligned(piece: &[u8], offset: u64) -> bool {
    piece.len().is_multiple_of(ALIGN) && offset.is_multiple_of(ALIGN as u64)
}

fn set_direct(file: &File, on: bool) -> io::Result<()> {
    let mut flags = rustix::fs::fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(rustix::fs::fcntl_setfl(file, flags)?)
}
