//! What one layer holds, as far as digests are concerned: every path with the digest of its header, and of its
//! content where somebody needed that. A layer never changes, so its table is made once and kept with it.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering as Memory};

use crate::encode::Hash;

/// What a table says of one path of its layer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Relative to the layer's root, without leading slash; empty for the root.
    pub path: &'a [u8],
    pub kind: RecordKind<'a>,
    /// Digest of the file's header: kind, mode, owner, device, link target, extended attributes.
    pub header: &'a Hash,
    /// SHA-256 of a regular file's bytes, once somebody asked.
    pub content: Option<&'a Hash>,
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind<'a> {
    File,
    Dir {
        /// Hides what lower layers have here.
        opaque: bool,
    },
    Symlink {
        target: &'a [u8],
    },
    /// Devices, fifos and sockets: nothing but a header.
    Special,
    /// The path is removed.
    Whiteout,
}

impl Record<'_> {
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, RecordKind::Dir { .. })
    }
}

/// The paths of a layer in [`path_order`]. Layers may have millions of them: a path takes 56 bytes and its own length.
#[derive(Debug, Default)]
pub struct LayerTable {
    /// Paths, each followed by its link target.
    text: Vec<u8>,
    rows: Vec<Row>,
    /// Each header once: most files of a layer have the same.
    headers: Vec<Hash>,
    /// Holds more than what is kept with the layer.
    unsaved: AtomicBool,
}

#[derive(Debug)]
struct Row {
    /// Where its text begins.
    start: u64,
    path_len: u16,
    target_len: u16,
    /// Number of its header; above [`TAG_SHIFT`] its [`Tag`].
    header_and_tag: u32,
    content: OnceLock<Hash>,
}

/// The bits of a row's number that say what the path is.
const TAG_SHIFT: u32 = 29;

/// As the stored form has it, less what it says of the content.
#[derive(Clone, Copy)]
enum Tag {
    File,
    Dir,
    OpaqueDir,
    Symlink,
    Special,
    Whiteout,
}

const TAGS: [Tag; 6] = [Tag::File, Tag::Dir, Tag::OpaqueDir, Tag::Symlink, Tag::Special, Tag::Whiteout];

/// A stored table that is none: from another version, or damaged. It is made anew then.
#[derive(Debug, thiserror::Error)]
#[error("stored content digests are not readable")]
pub struct BadTable;

/// A path or link target that is longer than those of files are, or more different headers than a table has numbers for.
#[derive(Debug, thiserror::Error)]
#[error("file name too long")]
pub struct TooLong;

impl From<TooLong> for BadTable {
    fn from(_: TooLong) -> Self {
        BadTable
    }
}

/// Names the layout below.
const MAGIC: &[u8; 8] = b"kilnct01";

/// Gathers the paths of a layer, in any order.
#[derive(Debug, Default)]
pub struct TableBuilder {
    table: LayerTable,
    numbers: HashMap<Hash, u32>,
}

impl TableBuilder {
    /// Adds a path. Of several that are equal the last one holds.
    ///
    /// # Errors
    /// [`TooLong`], from 65,536 bytes on.
    pub fn push(&mut self, record: &Record<'_>) -> Result<(), TooLong> {
        let (tag, target) = match record.kind {
            RecordKind::File => (Tag::File, &b""[..]),
            RecordKind::Dir { opaque: false } => (Tag::Dir, &b""[..]),
            RecordKind::Dir { opaque: true } => (Tag::OpaqueDir, &b""[..]),
            RecordKind::Symlink { target } => (Tag::Symlink, target),
            RecordKind::Special => (Tag::Special, &b""[..]),
            RecordKind::Whiteout => (Tag::Whiteout, &b""[..]),
        };
        let len = |bytes: &[u8]| u16::try_from(bytes.len()).map_err(|_| TooLong);
        let (path_len, target_len) = (len(record.path)?, len(target)?);
        let headers = &mut self.table.headers;
        let number = *self.numbers.entry(*record.header).or_insert_with(|| {
            headers.push(*record.header);
            headers.len() as u32 - 1
        });
        if number >> TAG_SHIFT != 0 {
            return Err(TooLong);
        }
        let content = record.content.map_or_else(OnceLock::new, |content| OnceLock::from(*content));
        let start = self.table.text.len() as u64;
        let header_and_tag = number | (tag as u32) << TAG_SHIFT;
        self.table.rows.push(Row { start, path_len, target_len, header_and_tag, content });
        self.table.text.extend_from_slice(record.path);
        self.table.text.extend_from_slice(target);
        Ok(())
    }

    /// Adds all that was added to `other`.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn append(&mut self, other: &TableBuilder) -> Result<(), TooLong> {
        other.table.records().try_for_each(|record| self.push(&record))
    }

    /// The table of all that was added.
    pub fn finish(self) -> LayerTable {
        let LayerTable { mut text, mut rows, mut headers, .. } = self.table;
        let path = |row: &Row| &text[row.start as usize..][..usize::from(row.path_len)];
        if !rows.is_sorted_by(|a, b| path_order(path(a), path(b)) == Ordering::Less) {
            rows.sort_by(|a, b| path_order(path(a), path(b)));
            rows.reverse();
            rows.dedup_by(|a, b| path(a) == path(b));
            rows.reverse();
        }
        text.shrink_to_fit();
        rows.shrink_to_fit();
        headers.shrink_to_fit();
        LayerTable { text, rows, headers, unsaved: AtomicBool::new(true) }
    }
}

impl LayerTable {
    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What is said of the path with this place in the order.
    pub fn record(&self, index: usize) -> Record<'_> {
        let row = &self.rows[index];
        let (path, rest) = self.text[row.start as usize..].split_at(row.path_len.into());
        let kind = match TAGS[(row.header_and_tag >> TAG_SHIFT) as usize] {
            Tag::File => RecordKind::File,
            Tag::Dir => RecordKind::Dir { opaque: false },
            Tag::OpaqueDir => RecordKind::Dir { opaque: true },
            Tag::Symlink => RecordKind::Symlink { target: &rest[..row.target_len.into()] },
            Tag::Special => RecordKind::Special,
            Tag::Whiteout => RecordKind::Whiteout,
        };
        let header = &self.headers[(row.header_and_tag & ((1 << TAG_SHIFT) - 1)) as usize];
        Record { path, kind, header, content: row.content.get() }
    }

    /// The path with this place in the order.
    pub fn path(&self, index: usize) -> &[u8] {
        let row = &self.rows[index];
        &self.text[row.start as usize..][..row.path_len.into()]
    }

    /// All paths in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.len()).map(|index| self.record(index))
    }

    /// Remembers a file's content digest.
    pub fn set_content(&self, index: usize, hash: Hash) {
        if self.rows[index].content.set(hash).is_ok() {
            self.unsaved.store(true, Memory::Release);
        }
    }

    /// Whether there is something to save; the caller does it.
    pub fn take_unsaved(&self) -> bool {
        self.unsaved.swap(false, Memory::AcqRel)
    }

    /// The table as bytes: paths with what they share with the one before cut off, integers as LEB128.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.len() * 96 + 16);
        out.extend_from_slice(MAGIC);
        put_uint(&mut out, self.len());
        let mut previous: &[u8] = b"";
        for record in self.records() {
            let shared = record.path.iter().zip(previous).take_while(|(a, b)| a == b).count();
            put_uint(&mut out, shared);
            put_bytes(&mut out, &record.path[shared..]);
            previous = record.path;
            out.push(match record.kind {
                RecordKind::File if record.content.is_some() => 1,
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
            out.extend_from_slice(record.header);
            match (record.kind, record.content) {
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
        let mut builder = TableBuilder::default();
        let (mut path, mut next): (Vec<u8>, Vec<u8>) = Default::default();
        for number in 0..count {
            let shared = input.uint()?;
            next.clear();
            next.extend_from_slice(path.get(..shared).ok_or(BadTable)?);
            let suffix_length = input.uint()?;
            next.extend_from_slice(input.take(suffix_length)?);
            if number > 0 && path_order(&path, &next) != Ordering::Less {
                return Err(BadTable);
            }
            std::mem::swap(&mut path, &mut next);
            let tag = input.take(1)?[0];
            let header = if tag == 7 { Hash::default() } else { input.hash()? };
            let mut content = None;
            let kind = match tag {
                1 => {
                    content = Some(input.hash()?);
                    RecordKind::File
                }
                2 => RecordKind::File,
                3 => RecordKind::Dir { opaque: false },
                4 => RecordKind::Dir { opaque: true },
                5 => {
                    let length = input.uint()?;
                    RecordKind::Symlink { target: input.take(length)? }
                }
                6 => RecordKind::Special,
                7 => RecordKind::Whiteout,
                _ => return Err(BadTable),
            };
            builder.push(&Record { path: &path, kind, header: &header, content: content.as_ref() })?;
        }
        let table = builder.finish();
        table.unsaved.store(false, Memory::Release);
        Ok(table)
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

    fn table<'a>(records: impl IntoIterator<Item = (&'a str, RecordKind<'a>, Option<Hash>)>) -> LayerTable {
        let mut builder = TableBuilder::default();
        for (path, kind, content) in records {
            let header = &[path.len() as u8 % 3; 32];
            let record = Record { path: path.as_bytes(), kind, header, content: content.as_ref() };
            builder.push(&record).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn a_folder_is_followed_by_what_is_in_it() {
        let table = table(["a-b", "a", "a/x", "", "a.b", "a/b/c"].map(|path| (path, RecordKind::File, None)));
        let paths: Vec<_> =
            table.records().map(|record| String::from_utf8_lossy(record.path).into_owned()).collect();
        assert_eq!(paths, ["", "a", "a/b/c", "a/x", "a-b", "a.b"]);
    }

    #[test]
    fn of_equal_paths_the_last_holds() {
        let kinds = [("b", RecordKind::File), ("a", RecordKind::File), ("a", RecordKind::Whiteout)];
        let table = table(kinds.map(|(path, kind)| (path, kind, None)));
        assert_eq!(table.record(0).kind, RecordKind::Whiteout);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_path_takes_little_memory() {
        assert!(std::mem::size_of::<Row>() <= 56);
        let path = "x".repeat(70_000);
        let (kind, header) = (RecordKind::File, &Hash::default());
        let long = Record { path: path.as_bytes(), kind, header, content: None };
        assert!(TableBuilder::default().push(&long).is_err());
        let link = RecordKind::Symlink { target: path.as_bytes() };
        assert!(TableBuilder::default().push(&Record { path: b"x", kind: link, ..long }).is_err());
    }

    #[derive(Clone, Debug)]
    enum Kind {
        File { hashed: bool },
        Dir { opaque: bool },
        Symlink(Vec<u8>),
        Special,
        Whiteout,
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            any::<bool>().prop_map(|hashed| Kind::File { hashed }),
            any::<bool>().prop_map(|opaque| Kind::Dir { opaque }),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(Kind::Symlink),
            Just(Kind::Special),
            Just(Kind::Whiteout),
        ]
    }

    proptest! {
        #[test]
        fn comes_back_from_bytes(rows in prop::collection::vec(("[a-c./]{0,12}", kinds()), 0..40)) {
            let records = rows.iter().map(|(path, kind)| {
                let (kind, content) = match kind {
                    Kind::File { hashed } => (RecordKind::File, hashed.then_some([9; 32])),
                    Kind::Dir { opaque } => (RecordKind::Dir { opaque: *opaque }, None),
                    Kind::Symlink(target) => (RecordKind::Symlink { target }, None),
                    Kind::Special => (RecordKind::Special, None),
                    Kind::Whiteout => (RecordKind::Whiteout, None),
                };
                (path.as_str(), kind, content)
            });
            let table = table(records);
            let again = LayerTable::decode(&table.encode()).unwrap();
            prop_assert_eq!(table.encode(), again.encode());
            prop_assert_eq!(table.len(), again.len());
            for (a, b) in table.records().zip(again.records()) {
                prop_assert_eq!((a.path, a.kind, a.content), (b.path, b.kind, b.content));
                prop_assert!(a.header == b.header || a.kind == RecordKind::Whiteout);
                let said = rows.iter().rev().find(|(path, _)| path.as_bytes() == a.path).map(|(_, kind)| kind);
                prop_assert_eq!(matches!(said, Some(Kind::Whiteout)), a.kind == RecordKind::Whiteout);
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
