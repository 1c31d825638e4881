//! Long lists of bytes of which a bounded part is in memory.
//!
//! What says something of each file of a build's context, or of each path of a layer, is as long as these are many. A [`Spool`] is written to its
//! end and read anywhere. A short one is memory and nothing else; of a long one only the end is, and the rest is in a file
//! without a name, which ends with its last handle, whatever becomes of the process. What the spool holds is not durable.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A spool with no more bytes is in memory as a whole: some 40,000 files of a context.
pub const SHORT_BYTES_MAX: usize = 4 << 20;

/// Of a longer one this much of its end is in memory at most. What was written last is what is changed.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// One read of a long spool.
const READ_BYTES: usize = 64 << 10;

/// Bytes that are written to their end, changed in place, and read anywhere.
#[derive(Debug)]
pub struct Spool {
    /// Where the file is made.
    dir: Arc<Path>,
    file: Option<File>,
    /// Bytes in the file; those behind them are the tail.
    filed: u64,
    tail: Vec<u8>,
}

impl Spool {
    /// An empty one. Should it grow long, its file is made in `dir`, which has to be there then.
    pub fn new(dir: impl Into<Arc<Path>>) -> Self {
        Self { dir: dir.into(), file: None, filed: 0, tail: Vec::new() }
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.filed + self.tail.len() as u64
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes to the end.
    ///
    /// # Errors
    /// The file cannot be made or written. What was added then is not known.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tail.extend_from_slice(bytes);
        match &self.file {
            None if self.tail.len() <= SHORT_BYTES_MAX => return Ok(()),
            Some(_) if self.tail.len() <= TAIL_BYTES_MAX => return Ok(()),
            Some(_) => {}
            None => self.file = Some(tempfile::tempfile_in(&self.dir)?),
        }
        let gone = self.tail.len() - TAIL_BYTES_MAX / 2;
        let file = self.file.as_ref().expect("made above");
        file.write_all_at(&self.tail[..gone], self.filed)?;
        self.filed += gone as u64;
        self.tail.drain(..gone);
        self.tail.shrink_to(TAIL_BYTES_MAX);
        Ok(())
    }

    /// Changes bytes that are there.
    ///
    /// # Errors
    /// The file cannot be written; [`io::ErrorKind::UnexpectedEof`]: there are not that many bytes.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (filed, kept) = self.split(offset, bytes.len())?;
        if let Some(file) = &self.file {
            file.write_all_at(&bytes[..filed], offset)?;
        }
        self.tail[kept..][..bytes.len() - filed].copy_from_slice(&bytes[filed..]);
        Ok(())
    }

    /// Reads as many bytes as `buffer` is long.
    ///
    /// # Errors
    /// The file cannot be read; [`io::ErrorKind::UnexpectedEof`]: there are not that many bytes.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let (filed, kept) = self.split(offset, buffer.len())?;
        let (from_file, from_tail) = buffer.split_at_mut(filed);
        if let Some(file) = &self.file {
            file.read_exact_at(from_file, offset)?;
        }
        from_tail.copy_from_slice(&self.tail[kept..][..from_tail.len()]);
        Ok(())
    }

    /// All bytes, where they are in memory.
    pub fn as_slice(&self) -> Option<&[u8]> {
        self.file.is_none().then_some(&self.tail)
    }

    /// Where in the tail a range goes on, and how many bytes of it come before that.
    fn split(&self, offset: u64, length: usize) -> io::Result<(usize, usize)> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let filed = self.filed.saturating_sub(offset).min(length as u64);
        let kept = (offset + filed).saturating_sub(self.filed);
        // Both are within a buffer's length.
        Ok((filed as usize, kept as usize))
    }
}

/// Reads a spool from a place on.
#[derive(Debug)]
pub struct Reader<S> {
    spool: S,
    /// Of the first byte that was not given out.
    offset: u64,
    /// The bytes at `offset`, if the spool is long; what was given out of it lies before `used`.
    buffer: Vec<u8>,
    used: usize,
}

impl<S: Borrow<Spool>> Reader<S> {
    /// Begins at `offset`.
    pub fn new(spool: S, offset: u64) -> Self {
        Self { spool, offset, buffer: Vec::new(), used: 0 }
    }

    /// Where the next byte lies.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The spool itself.
    pub fn spool(&self) -> &Spool {
        self.spool.borrow()
    }

    /// Whether nothing is left.
    pub fn is_at_end(&self) -> bool {
        self.offset >= self.spool().len()
    }
}

impl<S: Borrow<Spool>> BufRead for Reader<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let spool = self.spool.borrow();
        if let Some(all) = spool.as_slice() {
            return Ok(usize::try_from(self.offset).ok().and_then(|at| all.get(at..)).unwrap_or_default());
        }
        if self.used == self.buffer.len() {
            let left = spool.len().saturating_sub(self.offset);
            self.buffer.resize(left.min(READ_BYTES as u64) as usize, 0);
            self.used = 0;
            if let Err(error) = spool.read_at(self.offset, &mut self.buffer) {
                self.buffer.clear();
                return Err(error);
            }
        }
        Ok(&self.buffer[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.offset += count as u64;
        // Short spools have no buffer.
        self.used = (self.used + count).min(self.buffer.len());
    }
}

impl<S: Borrow<Spool>> Read for Reader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memory(spool: &Spool) -> usize {
        spool.tail.capacity()
    }

    #[test]
    fn a_short_one_makes_no_file() {
        let mut spool = Spool::new(Path::new("/nowhere/at/all"));
        assert!(spool.is_empty());
        spool.append(&vec![7; SHORT_BYTES_MAX]).unwrap();
        assert_eq!(spool.as_slice().map(<[u8]>::len), Some(SHORT_BYTES_MAX));
        let error = spool.append(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_long_one_has_a_bounded_part_in_memory_and_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path());
        for number in 0..32_u8 {
            spool.append(&vec![number; 1 << 20]).unwrap();
            assert!(memory(&spool) <= SHORT_BYTES_MAX + (1 << 20), "{}", memory(&spool));
        }
        assert!(memory(&spool) <= 2 * TAIL_BYTES_MAX, "{}", memory(&spool));
        assert_eq!(spool.len(), 32 << 20);
        assert!(spool.as_slice().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut reader = Reader::new(&spool, 0);
        let mut length = 0;
        while !reader.is_at_end() {
            let offset = reader.offset();
            let bytes = reader.fill_buf().unwrap();
            let expected = (offset >> 20) as u8;
            assert_eq!(bytes[0], expected);
            let count = bytes.len();
            reader.consume(count);
            length += count;
        }
        assert_eq!(length, 32 << 20);
        assert_eq!(reader.fill_buf().unwrap(), b"");
    }

    #[test]
    fn nothing_is_read_or_written_past_the_end() {
        let mut spool = Spool::new(Path::new("/"));
        spool.append(b"abc").unwrap();
        let mut buffer = [0; 2];
        spool.read_at(1, &mut buffer).unwrap();
        assert_eq!(&buffer, b"bc");
        for offset in [2, 3, 4, u64::MAX] {
            let kind = io::ErrorKind::UnexpectedEof;
            assert_eq!(spool.read_at(offset, &mut buffer).unwrap_err().kind(), kind);
            assert_eq!(spool.write_at(offset, b"xy").unwrap_err().kind(), kind);
        }
        assert_eq!(spool.as_slice(), Some(&b"abc"[..]));
        assert_eq!(Reader::new(&spool, 9).fill_buf().unwrap(), b"");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn holds_what_was_written(
            pieces in prop::collection::vec((1..900_000_usize, any::<u8>()), 1..16),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 1..300_000_usize, any::<u8>()), 0..16),
            from in any::<prop::sample::Index>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut spool = Spool::new(dir.path());
            let mut model: Vec<u8> = Vec::new();
            for (length, byte) in pieces {
                let piece: Vec<u8> = (0..length).map(|at| byte.wrapping_add(at as u8)).collect();
                spool.append(&piece).unwrap();
                model.extend_from_slice(&piece);
            }
            for (at, length, byte) in changes {
                let at = at.index(model.len());
                let length = length.min(model.len() - at);
                spool.write_at(at as u64, &vec![byte; length]).unwrap();
                model[at..at + length].fill(byte);
            }
            let from = from.index(model.len());
            let mut read = Vec::new();
            Reader::new(&spool, from as u64).read_to_end(&mut read).unwrap();
            prop_assert!(read == model[from..]);
            let mut all = vec![0; model.len()];
            spool.read_at(0, &mut all).unwrap();
            prop_assert!(all == model);
        }
    }
}
