//! Long lists of bytes of which a bounded part is in memory.
//!
//! What says something of each file of a build's context, or of each path of a layer, is as long as these are many. A [`Spool`] is written to its
//! end and read anywhere. A short one is memory and nothing else; of a long one only the end is, and the rest is in a file
//! without a name, which ends with its last handle, whatever becomes of the process. What the spool holds is not durable.

use std::borrow::Borrow;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// One read of a long spool, or less where its tail is shorter.
const READ_BYTES: usize = 64 << 10;

/// How much of a spool is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// A spool with no more bytes is in memory as a whole.
    pub short_bytes_max: usize,
    /// Of a longer one this much of its end is in memory at most. What was written last is what is changed.
    pub tail_bytes_max: usize,
}

impl Default for Bounds {
    /// Some 40,000 files of a context are short.
    fn default() -> Self {
        Self { short_bytes_max: 4 << 20, tail_bytes_max: 1 << 20 }
    }
}

/// Makes spools: where their files are, and how much of each is in memory.
#[derive(Debug, Clone)]
pub struct Spools {
    dir: Arc<Path>,
    bounds: Bounds,
}

impl Spools {
    /// Spools with files in `dir`, which has to be there when one grows long.
    pub fn new(dir: impl Into<Arc<Path>>) -> Self {
        Self { dir: dir.into(), bounds: Bounds::default() }
    }

    /// The same with other bounds.
    pub fn with_bounds(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Where the files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How much of a spool is in memory.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// An empty spool.
    pub fn spool(&self) -> Spool {
        Spool { spools: self.clone(), file: None, filed: 0, tail: Vec::new() }
    }
}

/// Bytes that are written to their end, changed in place, and read anywhere.
#[derive(Debug)]
pub struct Spool {
    spools: Spools,
    file: Option<File>,
    /// Bytes in the file; those behind them are the tail.
    filed: u64,
    tail: Vec<u8>,
}

impl Spool {
    /// How much memory its bytes take.
    pub fn memory_bytes(&self) -> usize {
        self.tail.capacity()
    }

    /// Gives back what was taken for bytes that did not come.
    pub fn shrink_to_fit(&mut self) {
        self.tail.shrink_to_fit();
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.filed + self.tail.len() as u64
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What made it, and makes more of its kind.
    pub fn spools(&self) -> &Spools {
        &self.spools
    }

    /// Adds bytes to the end.
    ///
    /// # Errors
    /// The file cannot be made or written. What was added then is not known.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tail.extend_from_slice(bytes);
        let Bounds { short_bytes_max, tail_bytes_max, .. } = self.spools.bounds;
        match &self.file {
            None if self.tail.len() <= short_bytes_max => return Ok(()),
            Some(_) if self.tail.len() <= tail_bytes_max => return Ok(()),
            Some(_) => {}
            None => self.file = Some(tempfile::tempfile_in(&self.spools.dir)?),
        }
        let gone = self.tail.len() - (tail_bytes_max / 2).min(self.tail.len());
        let file = self.file.as_ref().expect("made above");
        file.write_all_at(&self.tail[..gone], self.filed)?;
        self.filed += gone as u64;
        self.tail.drain(..gone);
        self.tail.shrink_to(tail_bytes_max);
        Ok(())
    }

    /// Changes bytes that are there.
    ///
    /// # Errors
    /// The file cannot be written; [`io::ErrorKind::UnexpectedEof`]: there are not that many bytes.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (filed, kept) = self.split(offset, bytes.len())?;
        if let Some(file) = &self.file
            && filed > 0
        {
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
        if let Some(file) = &self.file
            && filed > 0
        {
            file.read_exact_at(from_file, offset)?;
        }
        from_tail.copy_from_slice(&self.tail[kept..][..from_tail.len()]);
        Ok(())
    }

    /// All bytes, where they are in memory.
    pub fn as_slice(&self) -> Option<&[u8]> {
        self.file.is_none().then_some(&self.tail)
    }

    /// The bytes from `offset` to the end, where they are in memory.
    pub fn slice_from(&self, offset: u64) -> Option<&[u8]> {
        self.tail.get(usize::try_from(offset.checked_sub(self.filed)?).ok()?..)
    }

    /// Gives all bytes to `to`.
    ///
    /// # Errors
    /// The file cannot be read, or `to` fails.
    pub fn write_to(&self, mut to: impl Write) -> io::Result<()> {
        let mut reader = Reader::new(self, 0);
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                return Ok(());
            }
            to.write_all(bytes)?;
            let count = bytes.len();
            reader.consume(count);
        }
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

/// Reads a spool from a place on. Made for what is written in pieces and read in order; what is written into a long spool may be seen
/// late by who reads there already.
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

    /// At least `count` of the next bytes in one piece, where there are so many; nothing is consumed. A long spool needs as much
    /// memory for it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn ahead(&mut self, count: usize) -> io::Result<&[u8]> {
        let spool = self.spool.borrow();
        if let Some(all) = spool.as_slice() {
            return Ok(usize::try_from(self.offset).ok().and_then(|at| all.get(at..)).unwrap_or_default());
        }
        let there = self.buffer.len() - self.used;
        let left = spool.len().saturating_sub(self.offset);
        if (there as u64) < left.min(count as u64) {
            // What is there goes to the beginning, the next ones behind it.
            self.buffer.drain(..self.used);
            self.used = 0;
            let wanted = count.max(spool.spools.bounds.tail_bytes_max.min(READ_BYTES));
            self.buffer.resize(left.min(wanted as u64) as usize, 0);
            if let Err(error) = spool.read_at(self.offset + there as u64, &mut self.buffer[there..]) {
                self.buffer.truncate(there);
                return Err(error);
            }
            // Something large was read once; what comes is mostly small.
            self.buffer.shrink_to(wanted);
        }
        Ok(&self.buffer[self.used..])
    }
}

impl<S: Borrow<Spool>> BufRead for Reader<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.ahead(1)
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

    const SHORT_BYTES_MAX: usize = 4 << 20;
    const TAIL_BYTES_MAX: usize = 1 << 20;

    #[test]
    fn a_short_one_makes_no_file() {
        let mut spool = Spools::new(Path::new("/nowhere/at/all")).spool();
        assert!(spool.is_empty());
        spool.append(&vec![7; SHORT_BYTES_MAX]).unwrap();
        assert_eq!(spool.as_slice().map(<[u8]>::len), Some(SHORT_BYTES_MAX));
        let error = spool.append(b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_long_one_has_a_bounded_part_in_memory_and_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spools::new(dir.path()).spool();
        for number in 0..32_u8 {
            spool.append(&vec![number; 1 << 20]).unwrap();
            assert!(spool.memory_bytes() <= SHORT_BYTES_MAX + (1 << 20), "{}", spool.memory_bytes());
        }
        assert!(spool.memory_bytes() <= 2 * TAIL_BYTES_MAX, "{}", spool.memory_bytes());
        assert_eq!(spool.len(), 32 << 20);
        assert!(spool.as_slice().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut reader = Reader::new(&spool, 0);
        let mut length = 0;
        while reader.offset() < spool.len() {
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
        let mut spool = Spools::new(Path::new("/")).spool();
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

    #[test]
    fn pieces_lie_in_one() {
        let dir = tempfile::tempdir().unwrap();
        let bounds = Bounds { short_bytes_max: 100, tail_bytes_max: 10 };
        for length in [100, 1000_u64] {
            let mut spool = Spools::new(dir.path()).with_bounds(bounds).spool();
            let all: Vec<u8> = (0..length).map(|at| at as u8).collect();
            all.chunks(7).for_each(|piece| spool.append(piece).unwrap());
            assert_eq!(spool.as_slice().is_some(), length == 100);
            let mut reader = Reader::new(&spool, 0);
            for count in [0, 1, 3, 40, 5, 17, 1, 64].into_iter().cycle() {
                let from = reader.offset() as usize;
                let bytes = reader.ahead(count).unwrap();
                assert!(bytes.len() >= count.min(all.len() - from));
                assert_eq!(bytes, &all[from..][..bytes.len()]);
                let used = count.min(bytes.len());
                reader.consume(used);
                if reader.offset() == spool.len() {
                    break;
                }
            }
            assert_eq!(reader.ahead(5).unwrap(), b"");
            assert_eq!(spool.slice_from(length - 1), Some(&all[all.len() - 1..]));
            assert_eq!(spool.slice_from(0).is_some(), length == 100);
            assert_eq!(spool.slice_from(length + 1), None);
            let mut copy = Vec::new();
            spool.write_to(&mut copy).unwrap();
            assert_eq!(copy, all);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn holds_what_was_written(
            pieces in prop::collection::vec((1..900_000_usize, any::<u8>()), 1..16),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 1..300_000_usize, any::<u8>()), 0..16),
            from in any::<prop::sample::Index>(),
            bounds in (0..5_000_000_usize, 0..2_000_000_usize),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let (short_bytes_max, tail_bytes_max) = bounds;
            let bounds = Bounds { short_bytes_max, tail_bytes_max };
            let mut spool = Spools::new(dir.path()).with_bounds(bounds).spool();
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
