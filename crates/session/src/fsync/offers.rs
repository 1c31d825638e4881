//! What a sender has said that it has, until it is asked for.

use std::io;

use kiln_proto::prost::encoding::{decode_varint, encode_varint};
use kiln_spool::{Spool, Spools};

use super::bits::Bits;

/// Records that are read one after the other to find one; where the first of them lies is kept, an eighth of a byte for each.
const BLOCK_RECORDS: u32 = 64;

/// A file whose contents may be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub path: String,
    pub size: i64,
}

/// All files of a transfer by their number. Each that has contents can be had once.
#[derive(Debug)]
pub(super) struct Offers {
    /// For each file the length of its path, the path, the size; for one without contents the length 0.
    spool: Spool,
    /// Where each block of records begins.
    blocks: Vec<u64>,
    /// Whether it may be asked for.
    open: Bits,
    /// The last block that was read from a file, and which one it is.
    read: Option<(usize, Vec<u8>)>,
    /// Of the record that is written.
    buffer: Vec<u8>,
}

impl Offers {
    pub(super) fn new(spools: &Spools) -> Self {
        let spool = spools.spool();
        Self { spool, blocks: Vec::new(), open: Bits::default(), read: None, buffer: Vec::new() }
    }

    /// The next file, if it has contents. False: there are no more numbers.
    pub(super) fn push(&mut self, offered: Option<(&str, i64)>) -> io::Result<bool> {
        if self.open.len().is_multiple_of(BLOCK_RECORDS) {
            self.blocks.push(self.spool.len());
        }
        self.buffer.clear();
        let (path, size) = offered.unwrap_or_default();
        encode_varint(path.len() as u64, &mut self.buffer);
        if offered.is_some() {
            self.buffer.extend_from_slice(path.as_bytes());
            encode_varint(size as u64, &mut self.buffer);
        }
        self.spool.append(&self.buffer)?;
        Ok(self.open.push(offered.is_some()))
    }

    /// The file with this number; none: there is none, it has no contents, or it was taken before.
    pub(super) fn take(&mut self, number: u32) -> io::Result<Option<Offered>> {
        if !self.open.take(number) {
            return Ok(None);
        }
        let block = (number / BLOCK_RECORDS) as usize;
        let begin = self.blocks[block];
        let mut bytes = match self.spool.slice_from(begin) {
            Some(bytes) => bytes,
            None => {
                let known = self.read.as_ref().is_some_and(|(known, _)| *known == block);
                if !known {
                    let end = self.blocks.get(block + 1).copied();
                    let length = end.unwrap_or(self.spool.len()) - begin;
                    let mut bytes = self.read.take().unwrap_or_default().1;
                    bytes.resize(length as usize, 0);
                    self.spool.read_at(begin, &mut bytes)?;
                    // One that is not complete is read again.
                    let block = if end.is_some() { block } else { usize::MAX };
                    self.read = Some((block, bytes));
                }
                &self.read.as_ref().expect("was just read").1
            }
        };
        let mut record = || {
            let length = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
            let (path, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            let size = if length == 0 { 0 } else { decode_varint(&mut bytes).ok()? };
            Some((path, size as i64))
        };
        for _ in 0..number % BLOCK_RECORDS {
            record().ok_or(io::ErrorKind::InvalidData)?;
        }
        let (path, size) = record().ok_or(io::ErrorKind::InvalidData)?;
        let path = std::str::from_utf8(path).map_err(|_| io::ErrorKind::InvalidData)?.to_owned();
        Ok(Some(Offered { path, size }))
    }
}

#[cfg(test)]
mod tests {
    use kiln_spool::Bounds;
    use proptest::prelude::*;

    use super::*;

    fn file(number: u32) -> Option<(String, i64)> {
        let size = i64::from(number) << (number % 40);
        (!number.is_multiple_of(5)).then(|| (format!("dir{}/file{number}", number / 10), size))
    }

    proptest! {
        #[test]
        fn each_file_is_had_once(
            count in 0..500_u32,
            asked in prop::collection::vec(0..600_u32, 0..1000),
            bounds in (0..10_000_usize, 0..2000_usize),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let bounds = Bounds { short_bytes_max: bounds.0, tail_bytes_max: bounds.1 };
            let mut offers = Offers::new(&Spools::new(dir.path()).with_bounds(bounds));
            let mut given = std::collections::HashSet::new();
            let (first, later) = asked.split_at(asked.len() / 2);
            // Half of it is asked for before all are there.
            for number in 0..count / 2 {
                offers.push(file(number).as_ref().map(|(path, size)| (path.as_str(), *size))).unwrap();
            }
            let mut check = |offers: &mut Offers, asked: &[u32], there: u32| {
                for number in asked.iter().copied() {
                    let known = file(number).filter(|_| number < there && given.insert(number));
                    let expected = known.map(|(path, size)| Offered { path, size });
                    assert_eq!(offers.take(number).unwrap(), expected);
                }
            };
            check(&mut offers, first, count / 2);
            for number in count / 2..count {
                offers.push(file(number).as_ref().map(|(path, size)| (path.as_str(), *size))).unwrap();
            }
            check(&mut offers, later, count);
        }
    }
}
