//! Reading.

use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;

use super::buffer::Buffer;
use super::{DIRECT_FROM_BYTES, PIECE_BYTES, PIECES_WAITING};

/// Reads a file front to back. What of it is in memory comes from there, and nothing is put there that was not.
pub struct BulkReader(Inner);

enum Inner {
    Small(File),
    /// A large file of which all was in memory so far: nothing is to be waited for, nor handed from one processor to another. Taken out
    /// when a thread takes over.
    Memory(Option<Source>),
    Large(Large),
}

/// Pieces that a thread reads ahead.
struct Large {
    full: Option<Receiver<io::Result<Box<Buffer>>>>,
    empty: SyncSender<Box<Buffer>>,
    piece: Option<Box<Buffer>>,
    at: usize,
    thread: Option<JoinHandle<()>>,
}

impl BulkReader {
    /// Reads the file at `path`, which nobody changes meanwhile.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() <= DIRECT_FROM_BYTES {
            return Ok(Self(Inner::Small(file)));
        }
        let direct = File::options().read(true).custom_flags(OFlags::DIRECT.bits() as i32).open(path).ok();
        Ok(Self(Inner::Memory(Some(Source { file, direct, offset: 0 }))))
    }
}

impl Read for BulkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Small(file) => file.read(out),
            Inner::Large(large) => large.read(out),
            Inner::Memory(source) => {
                if let Some(source) = source
                    && let Some(read) = source.read_memory(out)
                {
                    source.offset += *read.as_ref().unwrap_or(&0) as u64;
                    return read;
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
    fn start(mut source: Source) -> io::Result<Self> {
        let (filled, full) = sync_channel(PIECES_WAITING);
        let (empty, buffers) = sync_channel::<Box<Buffer>>(PIECES_WAITING + 1);
        for _ in 0..=PIECES_WAITING {
            // There is room for all of them.
            let _ = empty.try_send(Box::new(Buffer::new(PIECE_BYTES)));
        }
        let work = move || {
            for mut buffer in buffers {
                let piece = source.read(&mut buffer).map(|()| buffer);
                let last = piece.as_ref().map_or(true, |piece| piece.filled().is_empty());
                if filled.send(piece).is_err() || last {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("kiln-disk".into()).spawn(work)?;
        Ok(Self { full: Some(full), empty, piece: None, at: 0, thread: Some(thread) })
    }

    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(piece) = &self.piece {
                let rest = &piece.filled()[self.at..];
                if !rest.is_empty() {
                    let len = rest.len().min(out.len());
                    out[..len].copy_from_slice(&rest[..len]);
                    self.at += len;
                    return Ok(len);
                }
            }
            if let Some(used) = self.piece.take() {
                // The thread has ended: nothing is left to read.
                let _ = self.empty.try_send(used);
            }
            let next = self.full.as_ref().and_then(|full| full.recv().ok()).transpose()?;
            match next {
                Some(piece) if !piece.filled().is_empty() => {
                    self.piece = Some(piece);
                    self.at = 0;
                }
                _ => return Ok(0),
            }
        }
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        self.full = None;
        self.empty = sync_channel(0).0;
        if let Some(thread) = self.thread.take() {
            // A panic in it was printed there.
            let _ = thread.join();
        }
    }
}

struct Source {
    file: File,
    direct: Option<File>,
    offset: u64,
}

impl Source {
    /// Reads the next piece; at the end of the file an empty one.
    fn read(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        let mut len = 0;
        while len < PIECE_BYTES {
            let room = &mut buffer.room()[len..];
            let read = match self.read_memory(room) {
                Some(read) => read?,
                None => self.read_disk(room)?,
            };
            if read == 0 {
                break;
            }
            len += read;
            self.offset += read as u64;
        }
        buffer.set_len(len);
        Ok(())
    }

    /// What is in memory already; none: nothing of what comes next.
    fn read_memory(&self, room: &mut [u8]) -> Option<io::Result<usize>> {
        match rustix::io::preadv2(
            &self.file,
            &mut [IoSliceMut::new(room)],
            self.offset,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(read) => Some(Ok(read)),
            // Not there, or a file system that cannot tell.
            Err(_) => None,
        }
    }

    fn read_disk(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if let Some(direct) = &self.direct {
            match direct.read_at(room, self.offset) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    // Not aligned as this disk wants it, or not to be had.
                }
                result => return result,
            }
        }
        self.file.read_at(room, self.offset)
    }
}
