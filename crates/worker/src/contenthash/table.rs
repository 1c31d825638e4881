//! What one layer holds, as far as digests are concerned: every path with the digest of its header, and of its
//! content where somebody needed that. A layer never changes, so its table is made once and kept with it.

use std::cmp::Ordering;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering as Memory};

use crate::encode::Hash;

/// One path of a layer.
#[derive(Clone, Debug)]
pub struct Record {
    /// Relative to the layer's root, without leading slash; empty for the root.
    pub path: Box<[u8]>,
    pub kind: RecordKind,
    /// Digest of the file's header: kind, mode, owner, device, link target, extended attributes.
    pub header: Hash,
    /// SHA-256 of a regular file's bytes, once somebody asked.
    pub content: OnceLock<Hash>,
}

/// What a path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    File,
    Dir {
        /// Hides what lower layers have here.
        opaque: bool,
    },
    Symlink {
        target: Box<[u8]>,
    },
    /// Devices, fifos and sockets: nothing but a header.
    Special,
    /// The path is removed.
    Whiteout,
}

impl Record {
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, RecordKind::Dir { .. })
    }
}

/// The paths of a layer in [`path_order`].
#[derive(Debug, Default)]
pub struct LayerTable {
    records: Vec<Record>,
    /// Holds more than what is kept with the layer.
    unsaved: AtomicBool,
}

/// A stored table that is none: from another version, or damaged. It is made anew then.
#[derive(Debug, thiserror::Error)]
#[error("stored content digests are not readable")]
pub struct BadTable;

/// Names the layout below.
const MAGIC: &[u8; 8] = b"kilnct01";

impl LayerTable {
    /// A table of `records` in any order; of several with the same path the last one holds.
    pub fn new(mut records: Vec<Record>) -> LayerTable {
        if !records.is_sorted_by(|a, b| path_order(&a.path, &b.path) == Ordering::Less) {
            records.sort_by(|a, b| path_order(&a.path, &b.path));
            records.reverse();
            records.dedup_by(|a, b| a.path == b.path);
            records.reverse();
        }
        LayerTable { records, unsaved: AtomicBool::new(true) }
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Remembers a file's content digest.
    pub fn set_content(&self, index: usize, hash: Hash) {
        if self.records[index].content.set(hash).is_ok() {
            self.unsaved.store(true, Memory::Release);
        }
    }

    /// Whether there is something to save; the caller does it.
    pub fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Memory::AcqRel)
    }

    /// The table as bytes: paths with what they share with the one before cut off, integers as LEB128.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.records.len() * 96 + 16);
        out.extend_from_slice(MAGIC);
        put_uint(&mut out, self.records.len());
        let mut previous: &[u8] = b"";
        for record in &self.records {
            let shared = record.path.iter().zip(previous).take_while(|(a, b)| a == b).count();
            put_uint(&mut out, shared);
            put_bytes(&mut out, &record.path[shared..]);
            previous = &record.path;
            let content = record.content.get();
            out.push(match &record.kind {
                RecordKind::File if content.is_some() => 1,
                RecordKind::File => 2,
                RecordKind::Dir { opaque: false } => 3,
                RecordKind::Dir { opaque: true } => 4,
                RecordKind::Symlink { .. } => 5,
                RecordKind::Special => 6,
                RecordKind::Whiteout => 7,
            });
            if record.kind == RecordKind::Whiteout {
                continue;
            }
            out.extend_from_slice(&record.header);
            match (&record.kind, content) {
                (RecordKind::Symlink { target }, _) => put_bytes(&mut out, target),
                (RecordKind::File, Some(content)) => out.extend_from_slice(content),
                _ => {}
            }
        }
        out
    }

    /// Reads what [`LayerTable::encode`] wrote.
    ///
    /// # Errors
    /// [`BadTable`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<LayerTable, BadTable> {
        let mut input = Input(bytes.strip_prefix(MAGIC).ok_or(BadTable)?);
        let count = input.uint()?;
        // A record takes three bytes at least: a false count can't make us reserve more than that says.
        let mut records: Vec<Record> = Vec::with_capacity(count.min(bytes.len() / 3));
        for _ in 0..count {
            let shared = input.uint()?;
            let suffix_length = input.uint()?;
            let suffix = input.take(suffix_length)?;
            let previous = records.last().map_or(&b""[..], |record| &record.path);
            let mut path = previous.get(..shared).ok_or(BadTable)?.to_vec();
            path.extend_from_slice(suffix);
            if !records.is_empty() && path_order(previous, &path) != Ordering::Less {
                return Err(BadTable);
            }
            let tag = input.take(1)?[0];
            let header = if tag == 7 { Hash::default() } else { input.hash()? };
            let content = OnceLock::new();
            let kind = match tag {
                1 => {
                    content.set(input.hash()?).expect("it is new");
                    RecordKind::File
                }
                2 => RecordKind::File,
                3 => RecordKind::Dir { opaque: false },
                4 => RecordKind::Dir { opaque: true },
                5 => {
                    let length = input.uint()?;
                    RecordKind::Symlink { target: input.take(length)?.into() }
                }
                6 => RecordKind::Special,
                7 => RecordKind::Whiteout,
                _ => return Err(BadTable),
            };
            records.push(Record { path: path.into(), kind, header, content });
        }
        Ok(LayerTable { records, unsaved: AtomicBool::new(false) })
    }
}

/// Order of paths in which what is in a folder follows it at once: components compare as bytes, and a shorter list of
/// components comes first.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    let slash_first = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(slash_first).cmp(b.iter().map(slash_first))
}

/// Whether `path` lies somewhere below the folder `dir`.
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    if dir.is_empty() {
        !path.is_empty()
    } else {
        path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/'
    }
}

fn put_uint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_uint(out, bytes.len());
    out.extend_from_slice(bytes);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BadTable> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(BadTable)?;
        self.0 = rest;
        Ok(head)
    }

    fn hash(&mut self) -> Result<Hash, BadTable> {
        self.take(32)?.try_into().map_err(|_| BadTable)
    }

    fn uint(&mut self) -> Result<usize, BadTable> {
        let mut number = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            number |= usize::from(byte & 0x7f).checked_shl(shift).ok_or(BadTable)?;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(BadTable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(path: &str, kind: RecordKind) -> Record {
        Record { path: path.as_bytes().into(), kind, header: [7; 32], content: OnceLock::new() }
    }

    #[test]
    fn a_folder_is_followed_by_what_is_in_it() {
        let table = LayerTable::new(
            ["a-b", "a", "a/x", "", "a.b", "a/b/c"].map(|path| record(path, RecordKind::File)).to_vec(),
        );
        let paths: Vec<_> =
            table.records().iter().map(|record| String::from_utf8_lossy(&record.path).into_owned()).collect();
        assert_eq!(paths, ["", "a", "a/b/c", "a/x", "a-b", "a.b"]);
    }

    #[test]
    fn of_equal_paths_the_last_holds() {
        let table = LayerTable::new(vec![
            record("b", RecordKind::File),
            record("a", RecordKind::File),
            record("a", RecordKind::Whiteout),
        ]);
        assert_eq!(table.records()[0].kind, RecordKind::Whiteout);
        assert_eq!(table.records().len(), 2);
    }

    fn kinds() -> impl Strategy<Value = (RecordKind, bool)> {
        prop_oneof![
            Just((RecordKind::File, true)),
            Just((RecordKind::File, false)),
            any::<bool>().prop_map(|opaque| (RecordKind::Dir { opaque }, false)),
            prop::collection::vec(any::<u8>(), 0..200)
                .prop_map(|target| (RecordKind::Symlink { target: target.into() }, false)),
            Just((RecordKind::Special, false)),
            Just((RecordKind::Whiteout, false)),
        ]
    }

    proptest! {
        #[test]
        fn comes_back_from_bytes(rows in prop::collection::vec(("[a-c./]{0,12}", kinds()), 0..40)) {
            let records = rows.into_iter().map(|(path, (kind, hashed))| {
                let record = record(&path, kind);
                if hashed {
                    record.content.set([9; 32]).unwrap();
                }
                record
            });
            let table = LayerTable::new(records.collect());
            let again = LayerTable::decode(&table.encode()).unwrap();
            prop_assert_eq!(table.encode(), again.encode());
            for (a, b) in table.records().iter().zip(again.records()) {
                prop_assert_eq!((&a.path, &a.kind, a.content.get()), (&b.path, &b.kind, b.content.get()));
            }
        }

        #[test]
        fn damaged_bytes_are_refused_or_read(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = LayerTable::decode(&bytes);
            bytes.splice(0..0, *MAGIC);
            let _ = LayerTable::decode(&bytes);
        }
    }
}
