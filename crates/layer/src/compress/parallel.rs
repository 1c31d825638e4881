//! A writer that compresses what is written to it, with helper threads where some are free.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::CompressOptions;
use super::block::Codec;
use crate::error::Result;
use crate::threads::{Budget, Helpers};

/// Blocks under way for each helper: one being compressed, one waiting.
const BLOCKS_PER_HELPER: usize = 2;

type Done = io::Result<Vec<u8>>;

/// Compresses into `W`. Call [`Compressor::finish`]; what is dropped unfinished is no valid stream.
///
/// The bytes depend on what is written and on the options, neither on how it is cut into writes nor on the number of
/// helpers. Memory: about `2 × helpers + 1` blocks (1 MiB for gzip, 4 MiB for zstd) plain and compressed.
pub struct Compressor<W: Write> {
    out: W,
    mode: Mode,
}

enum Mode {
    Plain,
    Blocks { codec: Arc<dyn Codec>, plain: Vec<u8>, any: bool, team: Option<Team> },
}

/// Helpers and the blocks that are with them, oldest first.
struct Team {
    jobs: Option<SyncSender<Job>>,
    pending: VecDeque<Receiver<Done>>,
    limit: usize,
    threads: Vec<JoinHandle<()>>,
    _helpers: Helpers,
}

struct Job {
    plain: Vec<u8>,
    done: SyncSender<Done>,
}

impl<W: Write> Compressor<W> {
    /// Compresses into `out` with what `budget` has free.
    pub fn new(out: W, options: &CompressOptions, budget: &Budget) -> Result<Self> {
        let mode = match options.codec()? {
            None => Mode::Plain,
            Some(codec) => Mode::Blocks { codec, plain: Vec::new(), any: false, team: None },
        };
        let mut this = Self { out, mode };
        if let Mode::Blocks { codec, team, .. } = &mut this.mode {
            *team = Team::start(codec, budget);
        }
        Ok(this)
    }

    /// Writes what is left and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        if let Mode::Blocks { codec, plain, any, team } = &mut self.mode {
            if !plain.is_empty() || !*any {
                let last = if plain.is_empty() { codec.empty()? } else { codec.compress(plain)? };
                if let Some(team) = team {
                    team.drain(&mut self.out, 0)?;
                }
                self.out.write_all(&last)?;
            } else if let Some(team) = team {
                team.drain(&mut self.out, 0)?;
            }
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Mode::Blocks { codec, plain, any, team } = &mut self.mode else {
            return self.out.write(buf);
        };
        let block = codec.block_bytes();
        if plain.capacity() == 0 {
            plain.reserve_exact(block);
        }
        let len = buf.len().min(block - plain.len());
        plain.extend_from_slice(&buf[..len]);
        if plain.len() == block {
            *any = true;
            let full = std::mem::take(plain);
            match team {
                Some(team) => team.submit(full, &mut self.out)?,
                None => {
                    self.out.write_all(&codec.compress(&full)?)?;
                    *plain = full;
                    plain.clear();
                }
            }
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushing what is no whole block would let the caller's rhythm decide the bytes.
        Ok(())
    }
}

impl Team {
    fn start(codec: &Arc<dyn Codec>, budget: &Budget) -> Option<Self> {
        let helpers = budget.take(std::thread::available_parallelism().map_or(1, usize::from));
        let (jobs, queue) = sync_channel::<Job>(helpers.count().max(1));
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..helpers.count() {
            let (codec, queue) = (Arc::clone(codec), Arc::clone(&queue));
            let work = move || {
                loop {
                    let job = queue.lock().unwrap_or_else(|poison| poison.into_inner()).recv();
                    let Ok(job) = job else { return };
                    // The receiver is gone only when the stream was given up.
                    let _ = job.done.send(codec.compress(&job.plain));
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
        let limit = threads.len() * BLOCKS_PER_HELPER;
        Some(Self { jobs: Some(jobs), pending: VecDeque::new(), limit, threads, _helpers: helpers })
    }

    fn submit(&mut self, plain: Vec<u8>, out: &mut impl Write) -> io::Result<()> {
        self.drain(out, self.limit - 1)?;
        let (done, result) = sync_channel(1);
        self.pending.push_back(result);
        let jobs = self.jobs.as_ref().expect("jobs are taken only on drop");
        jobs.send(Job { plain, done }).map_err(|_| io::Error::other("compression helpers are gone"))
    }

    /// Writes finished blocks, oldest first, until at most `keep` are under way.
    fn drain(&mut self, out: &mut impl Write, keep: usize) -> io::Result<()> {
        while self.pending.len() > keep {
            let oldest = self.pending.pop_front().expect("more than `keep` are pending");
            let bytes = oldest.recv().map_err(|_| io::Error::other("a compression helper died"))??;
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.jobs = None;
        self.pending.clear();
        for thread in self.threads.drain(..) {
            // A helper that panicked was reported by the block that never came.
            let _ = thread.join();
        }
    }
}
