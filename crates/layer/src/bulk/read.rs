//! Reading.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;

use super::buffer::{ALIGN, Buffer};
use super::{DIRECT_FROM_BYTES, PIECE_BYTES, cached};

/// Threads that read ahead: a disk that is asked for one thing at a time rests in between.
const LANES: usize = 2;

/// Buffers of each thread that reads ahead: one that the disk fills, one that waits or is read.
const BUFFERS_PER_LANE: usize = 2;

/// Reads a file front to back. What of it is in memory comes from there, and nothing is put there that was not.
pub struct BulkReader(Inner);

enum Inner {
    Small(File),
    /// A large file of which all was in memory so far: nothing is to be waited for, nor handed from one processor to another. Taken out
    /// when a thread takes over.
    Memory(Option<Source>),
    Large(Large),
}

/// Pieces that threads read ahead, in turn.
struct Large {
    lanes: [Lane; LANES],
    /// Whose piece comes next.
    turn: usize,
    /// What is given out; it goes back to this lane, if it came from one.
    piece: Option<(Option<usize>, Box<Buffer>)>,
    at: usize,
}

/// One thread and its buffers.
struct Lane {
    full: Option<Receiver<io::Result<Box<Buffer>>>>,
    empty: Option<SyncSender<Box<Buffer>>>,
    thread: Option<JoinHandle<()>>,
}

impl BulkReader {
    /// Reads the file at `path`, which nobody changes meanwhile.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        if size <= DIRECT_FROM_BYTES {
            return Ok(Self(Inner::Small(file)));
        }
        let direct = File::options().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok();
        let told = cached::is_told(&file);
        Ok(Self(Inner::Memory(Some(Source { file, size, direct, told, offset: 0, cached_to: 0 }))))
    }
}

impl Read for BulkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Small(file) => file.read(out),
            Inner::Large(large) => large.read(out),
            Inner::Memory(source) => {
                if let Some(source) = source
                    && let Some(read) = source.read_on(out)
                {
                    return Ok(read);
                }
                let left =
                    source.take().ok_or_else(|| io::Error::other("a thread to read with is missing"))?;
                self.0 = Inner::Large(Large::start(left)?);
                self.read(out)
            }
        }
    }
}

impl Large {
    fn start(source: Source) -> io::Result<Self> {
        // What the disk can read alone begins at the next aligned place; up to there the file is read as any other.
        let first = source.offset.next_multiple_of(ALIGN as u64);
        let mut head = Box::new(Buffer::new(ALIGN));
        let len = source.file.read_at(&mut head.room()[..(first - source.offset) as usize], source.offset)?;
        head.set_len(len);
        let source = Arc::new(source);
        let lane = |number: u64| Lane::start(&source, first + number * PIECE_BYTES as u64);
        Ok(Self { lanes: [lane(0)?, lane(1)?], turn: 0, piece: Some((None, head)), at: 0 })
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some((_, piece)) = &self.piece {
                let rest = &piece.filled()[self.at..];
                if !rest.is_empty() {
                    let len = rest.len().min(out.len());
                    out[..len].copy_from_slice(&rest[..len]);
                    self.at += len;
                    return Ok(len);
                }
            }
            if let Some((Some(lane), used)) = self.piece.take() {
                self.lanes[lane].give_back(used);
            }
            let lane = self.turn;
            match self.lanes[lane].next()? {
                Some(piece) if !piece.filled().is_empty() => {
                    self.piece = Some((Some(lane), piece));
                    self.at = 0;
                    self.turn = (lane + 1) % LANES;
                }
                _ => return Ok(0),
            }
        }
    }
}

impl Lane {
    fn start(source: &Arc<Source>, first: u64) -> io::Result<Self> {
        let (filled, full) = sync_channel(BUFFERS_PER_LANE);
        let (empty, buffers) = sync_channel::<Box<Buffer>>(BUFFERS_PER_LANE);
        for _ in 0..BUFFERS_PER_LANE {
            // There is room for all of them.
            let _ = empty.try_send(Box::new(Buffer::new(PIECE_BYTES)));
        }
        let source = Arc::clone(source);
        let work = move || {
            let mut offset = first;
            for mut buffer in buffers {
                let piece = source.read_piece(offset, &mut buffer).map(|()| buffer);
                offset += (LANES * PIECE_BYTES) as u64;
                let last = piece.as_ref().map_or(true, |piece| !piece.is_full());
                if filled.send(piece).is_err() || last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("kiln-disk".into()).spawn(work)?;
        Ok(Self { full: Some(full), empty: Some(empty), thread: Some(thread) })
    }

    fn next(&self) -> io::Result<Option<Box<Buffer>>> {
        self.full.as_ref().and_then(|full| full.recv().ok()).transpose()
    }

    fn give_back(&self, used: Box<Buffer>) {
        if let Some(empty) = &self.empty {
            // The thread may have ended: nothing is left to read.
            let _ = empty.try_send(used);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.full = None;
        self.empty = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed there.
            let _ = thread.join();
        }
    }
}

struct Source {
    file: File,
    size: u64,
    direct: Option<File>,
    /// The kernel tells what is in memory.
    told: bool,
    offset: u64,
    /// Up to here the file is known to be in memory.
    cached_to: u64,
}

impl Source {
    /// Reads the piece at `offset`, up to its end or that of the file.
    fn read_piece(&self, offset: u64, buffer: &mut Buffer) -> io::Result<()> {
        let mut len = 0;
        let in_memory = self.is_cached(offset);
        while len < PIECE_BYTES {
            let (at, room) = (offset + len as u64, &mut buffer.room()[len..]);
            let read = match in_memory.then(|| self.read_cached(at, room)).flatten() {
                Some(read) => read,
                None => self.read_disk(at, room)?,
            };
            if read == 0 {
                break;
            }
            len += read;
        }
        buffer.set_len(len);
        Ok(())
    }

    /// What comes next, if it is in memory already.
    fn read_on(&mut self, room: &mut [u8]) -> Option<usize> {
        if self.offset >= self.cached_to {
            if !self.is_cached(self.offset) {
                return None;
            }
            self.cached_to = self.offset + PIECE_BYTES as u64;
        }
        let len = room.len().min((self.cached_to - self.offset) as usize);
        let read = self.read_cached(self.offset, &mut room[..len])?;
        self.offset += read as u64;
        Some(read)
    }

    /// Whether the next piece is in memory, or cannot be told to be elsewhere.
    fn is_cached(&self, offset: u64) -> bool {
        let len = self.size.saturating_sub(offset).min(PIECE_BYTES as u64);
        !self.told || len == 0 || cached::is_cached(&self.file, offset, len).unwrap_or(true)
    }

    /// What is in memory; none: nothing of what comes next. Asking for what is not there would make the kernel fetch it there (since Linux
    /// 6.0), so where the kernel tells what is, it is asked before.
    fn read_cached(&self, offset: u64, room: &mut [u8]) -> Option<usize> {
        let mut room = [IoSliceMut::new(room)];
        // An error: it went, or this file system cannot tell.
        rustix::io::preadv2(&self.file, &mut room, offset, ReadWriteFlags::NOWAIT).ok()
    }

    fn read_disk(&self, offset: u64, room: &mut [u8]) -> io::Result<usize> {
        if let Some(direct) = &self.direct {
            match direct.read_at(room, offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    // Not aligned as this disk wants it, or not to be had.
                }
                result => return result,
            }
        }
        self.file.read_at(room, offset)
    }
}
