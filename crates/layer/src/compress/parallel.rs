//! A writer that compresses what is written to it, with helper threads where some are free.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kiln_oci::{Digest, Hasher};

use super::CompressOptions;
use super::block::{Codec, Worker};
use crate::error::Result;
use crate::threads::{Budget, Helpers};

/// Blocks under way for each helper: one being compressed, one waiting.
const BLOCKS_PER_HELPER: usize = 2;

/// Compresses into `W` and hashes the plain bytes. Call [`Compressor::finish`]; what is dropped unfinished is no valid
/// stream.
///
/// The bytes depend on what is written and on the options, neither on how it is cut into writes nor on the number of
/// helpers. Memory: about `2 × helpers + 3` blocks (1 MiB for gzip, 4 MiB for zstd), each plain and compressed.
pub struct Compressor<W: Write> {
    out: W,
    mode: Mode,
}

enum Mode {
    Plain(Hasher),
    Blocks(Blocks),
}

/// Cuts what comes into blocks.
struct Blocks {
    codec: Arc<dyn Codec>,
    plain: Vec<u8>,
    any: bool,
    by: By,
}

/// Who works on blocks.
enum By {
    /// The thread that writes.
    Alone {
        worker: Box<dyn Worker>,
        packed: Vec<u8>,
        hasher: Hasher,
    },
    Team(Team),
}

/// Helpers and the blocks that are with them, oldest first.
struct Team {
    jobs: Option<SyncSender<Job>>,
    hashing: Hashing,
    pending: VecDeque<Receiver<io::Result<Job>>>,
    limit: usize,
    /// Buffers to use again, plain and compressed.
    spare: Vec<Vec<u8>>,
    spare_packed: Vec<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
    _helpers: Helpers,
}

/// The plain bytes' digest, by a helper of its own when there is one.
enum Hashing {
    Here(Hasher),
    There { blocks: SyncSender<Arc<Vec<u8>>>, thread: JoinHandle<Hasher> },
    Ended,
}

/// A block on its way.
struct Job {
    plain: Arc<Vec<u8>>,
    packed: Vec<u8>,
    done: Option<SyncSender<io::Result<Job>>>,
}

impl<W: Write> Compressor<W> {
    /// Compresses into `out` with what `budget` has free.
    pub fn new(out: W, options: &CompressOptions, budget: &Budget) -> Result<Self> {
        let mode = match options.codec()? {
            None => Mode::Plain(Hasher::sha256()),
            Some(codec) => {
                let by = match Team::start(&codec, budget) {
                    Some(team) => By::Team(team),
                    None => By::alone(&codec).map_err(crate::error::Error::Write)?,
                };
                Mode::Blocks(Blocks { codec, plain: Vec::new(), any: false, by })
            }
        };
        Ok(Self { out, mode })
    }

    /// Writes what is left; gives the writer back, and the digest of the plain bytes.
    pub fn finish(mut self) -> io::Result<(W, Digest)> {
        let plain = match self.mode {
            Mode::Plain(hasher) => hasher.finish(),
            Mode::Blocks(blocks) => blocks.finish(&mut self.out)?,
        };
        self.out.flush()?;
        Ok((self.out, plain))
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.mode {
            Mode::Plain(hasher) => {
                let len = self.out.write(buf)?;
                hasher.update(&buf[..len]);
                Ok(len)
            }
            Mode::Blocks(blocks) => blocks.write(buf, &mut self.out),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushing what is no whole block would let the caller's rhythm decide the bytes.
        Ok(())
    }
}

impl Blocks {
    fn write(&mut self, buf: &[u8], out: &mut impl Write) -> io::Result<usize> {
        let block = self.codec.block_bytes();
        if self.plain.capacity() == 0 {
            self.plain.reserve_exact(block);
        }
        let len = buf.len().min(block - self.plain.len());
        self.plain.extend_from_slice(&buf[..len]);
        if self.plain.len() == block {
            self.block(out)?;
        }
        Ok(len)
    }

    /// Hands on the block that is full, or the last one.
    fn block(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.any = true;
        let full = std::mem::take(&mut self.plain);
        self.plain = match &mut self.by {
            By::Alone { worker, packed, hasher } => {
                hasher.update(&full);
                worker.compress(&full, packed)?;
                out.write_all(packed)?;
                full
            }
            By::Team(team) => team.submit(full, out)?,
        };
        self.plain.clear();
        Ok(())
    }

    fn finish(mut self, out: &mut impl Write) -> io::Result<Digest> {
        if !self.plain.is_empty() {
            self.block(out)?;
        }
        if !self.any {
            out.write_all(&self.codec.empty()?)?;
        }
        match self.by {
            By::Alone { hasher, .. } => Ok(hasher.finish()),
            By::Team(mut team) => {
                team.drain(out, 0)?;
                team.hashed()
            }
        }
    }
}

impl By {
    fn alone(codec: &Arc<dyn Codec>) -> io::Result<Self> {
        Ok(Self::Alone { worker: codec.worker()?, packed: Vec::new(), hasher: Hasher::sha256() })
    }
}

impl Team {
    fn start(codec: &Arc<dyn Codec>, budget: &Budget) -> Option<Self> {
        let packers = std::thread::available_parallelism().map_or(1, usize::from);
        let helpers = budget.take(packers + 1);
        // One of them hashes, if there is more than one.
        let packers = packers.min(helpers.count().saturating_sub(1).max(1)).min(helpers.count());
        let (jobs, queue) = sync_channel::<Job>(packers.max(1));
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..packers {
            let (Ok(mut worker), queue) = (codec.worker(), Arc::clone(&queue)) else { break };
            let work = move || {
                loop {
                    let job = queue.lock().unwrap_or_else(|poison| poison.into_inner()).recv();
                    let Ok(mut job) = job else { return };
                    let done = job.done.take();
                    let packed = worker.compress(&job.plain, &mut job.packed).map(|()| job);
                    // The receiver is gone only when the stream was given up.
                    let _ = done.map(|done| done.send(packed));
                }
            };
            match std::thread::Builder::new().name("kiln-compress".into()).spawn(work) {
                Ok(thread) => threads.push(thread),
                Err(_) => break,
            }
        }
        if threads.is_empty() {
            return None;
        }
        let hashing = match helpers.count() > threads.len() {
            true => Hashing::there(threads.len() * BLOCKS_PER_HELPER),
            false => Hashing::Here(Hasher::sha256()),
        };
        Some(Self {
            jobs: Some(jobs),
            hashing,
            pending: VecDeque::new(),
            limit: threads.len() * BLOCKS_PER_HELPER,
            spare: Vec::new(),
            spare_packed: Vec::new(),
            threads,
            _helpers: helpers,
        })
    }

    /// Takes a block on; gives a buffer for the next one.
    fn submit(&mut self, plain: Vec<u8>, out: &mut impl Write) -> io::Result<Vec<u8>> {
        self.drain(out, self.limit - 1)?;
        let (done, result) = sync_channel(1);
        let plain = Arc::new(plain);
        match &mut self.hashing {
            Hashing::There { blocks, .. } => {
                blocks
                    .send(Arc::clone(&plain))
                    .map_err(|_| io::Error::other("the hashing helper is gone"))?;
            }
            Hashing::Here(hasher) => hasher.update(&plain),
            Hashing::Ended => unreachable!("ended only by `hashed`, which takes the team"),
        }
        self.pending.push_back(result);
        let jobs = self.jobs.as_ref().expect("jobs are taken only on drop");
        let packed = self.spare_packed.pop().unwrap_or_default();
        jobs.send(Job { plain, packed, done: Some(done) })
            .map_err(|_| io::Error::other("compression helpers are gone"))?;
        Ok(self.spare.pop().unwrap_or_default())
    }

    /// Writes finished blocks, oldest first, until at most `keep` are under way.
    fn drain(&mut self, out: &mut impl Write, keep: usize) -> io::Result<()> {
        while self.pending.len() > keep {
            let oldest = self.pending.pop_front().expect("more than `keep` are pending");
            let job = oldest.recv().map_err(|_| io::Error::other("a compression helper died"))??;
            out.write_all(&job.packed)?;
            self.spare_packed.push(job.packed);
            // Still being hashed, it goes when that is done.
            self.spare.extend(Arc::into_inner(job.plain));
        }
        Ok(())
    }

    /// The digest of all plain bytes.
    fn hashed(mut self) -> io::Result<Digest> {
        match std::mem::replace(&mut self.hashing, Hashing::Ended) {
            Hashing::Here(hasher) => Ok(hasher.finish()),
            Hashing::There { blocks, thread } => {
                drop(blocks);
                thread.join().map(Hasher::finish).map_err(|_| io::Error::other("the hashing helper died"))
            }
            Hashing::Ended => unreachable!("`hashed` takes the team"),
        }
    }
}

impl Hashing {
    fn there(waiting: usize) -> Self {
        let (blocks, queue) = sync_channel::<Arc<Vec<u8>>>(waiting);
        let work = move || {
            let mut hasher = Hasher::sha256();
            for block in queue {
                hasher.update(&block);
            }
            hasher
        };
        match std::thread::Builder::new().name("kiln-hash".into()).spawn(work) {
            Ok(thread) => Self::There { blocks, thread },
            Err(_) => Self::Here(Hasher::sha256()),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.jobs = None;
        self.pending.clear();
        if let Hashing::There { blocks, thread } = std::mem::replace(&mut self.hashing, Hashing::Ended) {
            drop(blocks);
            let _ = thread.join();
        }
        for thread in self.threads.drain(..) {
            // A helper that panicked was reported by the block that never came.
            let _ = thread.join();
        }
    }
}
