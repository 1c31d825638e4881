//! Lists with a few bytes for each file, in memory as long as they are short.

use std::io;

use kiln_spool::{Bounds, Spool, Spools};

use super::error::SyncError;

/// Bytes of such a list that are in memory: there are several of them beside the two of all files.
const SHORT_BYTES_MAX: usize = 256 << 10;

/// Bytes of a place in a list.
const PLACE_BYTES: u64 = 8;

/// What comes of it when a list can be neither in memory nor on the disk.
pub(super) fn list_error(spools: &Spools, source: io::Error) -> SyncError {
    SyncError::File { action: "keep a list of files in", path: spools.dir().display().to_string(), source }
}

/// A spool of few bytes for each file.
fn small_spool(spools: &Spools) -> Spool {
    let bounds = spools.bounds();
    let small = Bounds {
        short_bytes_max: bounds.short_bytes_max.min(SHORT_BYTES_MAX),
        tail_bytes_max: bounds.tail_bytes_max.min(SHORT_BYTES_MAX / 4),
    };
    spools.clone().with_bounds(small).spool()
}

/// Numbers, taken off again from the end or read from the beginning.
#[derive(Debug)]
pub(super) struct Places {
    spool: Spool,
    /// How many there are. Of those that were taken off, the bytes stay.
    length: u64,
}

impl Places {
    pub(super) fn new(spools: &Spools) -> Self {
        Self { spool: small_spool(spools), length: 0 }
    }

    pub(super) fn push(&mut self, place: u64) -> io::Result<()> {
        let offset = self.length * PLACE_BYTES;
        if offset < self.spool.len() {
            self.spool.write_at(offset, &place.to_le_bytes())?;
        } else {
            self.spool.append(&place.to_le_bytes())?;
        }
        self.length += 1;
        Ok(())
    }

    pub(super) fn pop(&mut self) -> io::Result<Option<u64>> {
        let Some(length) = self.length.checked_sub(1) else { return Ok(None) };
        let last = self.get(length)?;
        self.length = length;
        Ok(Some(last))
    }

    /// All, from the first to the last.
    pub(super) fn iter(&self) -> impl Iterator<Item = io::Result<u64>> {
        (0..self.length).map(|number| self.get(number))
    }

    fn get(&self, number: u64) -> io::Result<u64> {
        let mut bytes = [0; PLACE_BYTES as usize];
        self.spool.read_at(number * PLACE_BYTES, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Records of `N` bytes that wait in line.
#[derive(Debug)]
pub(super) struct Queue<const N: usize> {
    spool: Spool,
    /// Bytes of the records that were taken.
    taken: u64,
}

impl<const N: usize> Queue<N> {
    pub(super) fn new(spools: &Spools) -> Self {
        Self { spool: small_spool(spools), taken: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.spool.len()
    }

    pub(super) fn push(&mut self, record: [u8; N]) -> io::Result<()> {
        self.spool.append(&record)
    }

    /// The first ones, `most` of them or all that there are.
    pub(super) fn take(&mut self, most: usize) -> io::Result<Vec<[u8; N]>> {
        let left = (self.spool.len() - self.taken) / N as u64;
        let mut records = vec![[0; N]; left.min(most as u64) as usize];
        let bytes = records.as_flattened_mut();
        self.spool.read_at(self.taken, bytes)?;
        self.taken += bytes.len() as u64;
        if self.is_empty() {
            // What was taken is let go of.
            *self = Self { spool: self.spool.spools().spool(), taken: 0 };
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tiny(dir: &std::path::Path) -> Spools {
        Spools::new(dir).with_bounds(Bounds { short_bytes_max: 100, tail_bytes_max: 30 })
    }

    #[test]
    fn places_come_back_from_both_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut places = Places::new(&tiny(dir.path()));
        (0..100).for_each(|place| places.push(place).unwrap());
        assert_eq!(places.pop().unwrap(), Some(99));
        assert_eq!(places.pop().unwrap(), Some(98));
        places.push(7).unwrap();
        assert!(places.iter().map(Result::unwrap).eq((0..98).chain([7])));
        (0..99).for_each(|_| assert!(places.pop().unwrap().is_some()));
        assert_eq!(places.pop().unwrap(), None);
    }

    #[test]
    fn a_queue_gives_what_came_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = Queue::<2>::new(&tiny(dir.path()));
        assert!(queue.is_empty());
        assert!(queue.take(5).unwrap().is_empty());
        let (mut put, mut taken) = (0_u16, Vec::new());
        for round in 0..300 {
            for _ in 0..round % 7 {
                queue.push(put.to_le_bytes()).unwrap();
                put += 1;
            }
            taken.extend(queue.take(round % 5).unwrap());
        }
        while !queue.is_empty() {
            taken.extend(queue.take(11).unwrap());
        }
        assert!(taken.into_iter().map(u16::from_le_bytes).eq(0..put));
    }

    #[test]
    fn there_may_be_no_room_for_a_list() {
        let spools = tiny(std::path::Path::new("/nowhere/at/all"));
        let mut places = Places::new(&spools);
        let error = (0..100).find_map(|place| places.push(place).err()).expect("there is no folder");
        let error = list_error(&spools, error).chain();
        assert!(error.starts_with("keep a list of files in /nowhere/at/all: No such file"), "{error}");
    }
}
