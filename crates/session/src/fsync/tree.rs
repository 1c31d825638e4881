//! What a directory holds after a transfer: the comparison for the next one.
//!
//! A tree is kept as it is stored: entries one after the other in a buffer, in the order of path components, some 130 bytes for a
//! file. A transfer reads the last one's from its beginning and writes its own to its end, both in that order.
//!
//! An entry is a byte of flags, 32 bytes for a digest where [`SLOT`] is set, and a length-delimited `fsutil.types.Stat`.

use std::cmp::Ordering;
use std::sync::OnceLock;

use kiln_proto::fsutil_types as wire;
use kiln_proto::prost::Message;
use kiln_proto::prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use super::mode::FileKind;
use super::order::compare_paths;
use super::stat::FileStat;

/// First byte of an encoded tree.
const VERSION: u8 = 2;

/// [`TreeEntry::complete`].
const COMPLETE: u8 = 1;
/// The digest is known.
const HAS_DIGEST: u8 = 2;
/// There is room for a digest.
const SLOT: u8 = 4;
/// [`TreeEntry::fresh`].
const FRESH: u8 = 8;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// First byte of an encoded stat: the key of its path, a field of a length-delimited type.
const PATH_KEY: u8 = 1 << 3 | 2;

/// SHA-256 of a file's contents.
pub type ContentDigest = [u8; DIGEST_BYTES];

/// Files in the order of path components.
#[derive(Debug, Clone)]
pub struct Tree {
    /// As it is stored.
    bytes: Vec<u8>,
    /// Where each entry begins; made when somebody looks for a path.
    places: OnceLock<Vec<Place>>,
}

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// As it was sent, with the owner that was set.
    pub stat: FileStat,
    /// Of a regular file's contents; none for everything else, hard links included.
    pub digest: Option<ContentDigest>,
    /// False: a transfer ended while it was written. It is there in some form and equals nothing.
    pub complete: bool,
    /// The transfer that left this tree made it, or changed it.
    pub fresh: bool,
}

/// An encoded tree that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid encoded tree")]
pub struct TreeError;

/// Where in the buffer an entry begins.
pub(super) type Place = usize;

impl Default for Tree {
    fn default() -> Self {
        TreeWriter::default().finish()
    }
}

/// Trees that hold the same are equal, whatever was made when.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        let held = |entry: TreeEntry| TreeEntry { fresh: false, ..entry };
        self.iter().map(held).eq(other.iter().map(held))
    }
}

impl Eq for Tree {}

impl Tree {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file at `path`.
    pub fn get(&self, path: &str) -> Option<TreeEntry> {
        let places = self.places.get_or_init(|| places(&self.bytes, 1).collect());
        find(&self.bytes, places, path).and_then(|place| read(&self.bytes, place)).map(|raw| raw.entry())
    }

    /// All files in order.
    pub fn iter(&self) -> impl Iterator<Item = TreeEntry> {
        let mut place = 1;
        std::iter::from_fn(move || {
            let raw = read(&self.bytes, place)?;
            place = raw.end;
            Some(raw.entry())
        })
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        places(&self.bytes, 1).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() <= 1
    }

    /// For storing.
    pub fn encoded(&self) -> &[u8] {
        &self.bytes
    }

    /// What [`Tree::encoded`] gave.
    pub fn decode(bytes: Vec<u8>) -> Result<Self, TreeError> {
        let mut reader = TreeReader::new(bytes)?;
        while let Some(raw) = reader.peek()? {
            raw.decode().ok_or(TreeError)?;
            reader.next = raw.end;
        }
        Ok(Self { bytes: reader.bytes, places: OnceLock::new() })
    }
}

/// One entry in a buffer.
struct Raw<'a> {
    flags: u8,
    slot: Option<&'a ContentDigest>,
    stat: &'a [u8],
    end: Place,
}

impl<'a> Raw<'a> {
    fn path(&self) -> Option<&'a str> {
        let (&PATH_KEY, mut bytes) = self.stat.split_first()? else { return None };
        let length = decode_varint(&mut bytes).ok()?;
        std::str::from_utf8(bytes.get(..usize::try_from(length).ok()?)?).ok()
    }

    fn decode(&self) -> Option<TreeEntry> {
        Some(TreeEntry {
            stat: wire::Stat::decode(self.stat).ok()?.into(),
            digest: self.slot.filter(|_| self.flags & HAS_DIGEST != 0).copied(),
            complete: self.flags & COMPLETE != 0,
            fresh: self.flags & FRESH != 0,
        })
    }

    /// Of a tree that was written here, or was checked.
    fn entry(&self) -> TreeEntry {
        self.decode().expect("a tree's entries were written here, or checked")
    }
}

/// None: the buffer ends there, or holds none.
fn read(bytes: &[u8], place: Place) -> Option<Raw<'_>> {
    let (&flags, mut rest) = bytes.get(place..)?.split_first()?;
    let slot = if flags & SLOT == 0 {
        None
    } else {
        let (slot, after) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        rest = after;
        Some(slot)
    };
    let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    let stat = rest.get(..length)?;
    let end = bytes.len() - rest.len() + length;
    Some(Raw { flags, slot, stat, end })
}

fn places(bytes: &[u8], from: Place) -> impl Iterator<Item = Place> {
    let mut place = from;
    std::iter::from_fn(move || {
        let here = place;
        place = read(bytes, here)?.end;
        Some(here)
    })
}

fn find(bytes: &[u8], places: &[Place], path: &str) -> Option<Place> {
    let compare = |place: &Place| {
        let there = read(bytes, *place).and_then(|raw| raw.path()).unwrap_or_default();
        compare_paths(there, path)
    };
    places.binary_search_by(compare).ok().map(|at| places[at])
}

/// Reads a stored tree from its beginning, beside paths that come in the same order.
#[derive(Debug)]
pub(super) struct TreeReader {
    bytes: Vec<u8>,
    next: Place,
    /// What was passed over.
    others: Vec<Place>,
}

impl Default for TreeReader {
    fn default() -> Self {
        Self { bytes: Vec::new(), next: 1, others: Vec::new() }
    }
}

impl TreeReader {
    /// No bytes at all are an empty tree.
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, TreeError> {
        match bytes.first() {
            None | Some(&VERSION) => Ok(Self { bytes, ..Self::default() }),
            Some(_) => Err(TreeError),
        }
    }

    /// The next entry; `None`: no more.
    fn peek(&self) -> Result<Option<Raw<'_>>, TreeError> {
        if self.next >= self.bytes.len() {
            return Ok(None);
        }
        read(&self.bytes, self.next).map(Some).ok_or(TreeError)
    }

    /// The entry at `path`. Paths are asked for in their order; what lies between two of them is left to [`TreeReader::take_others`].
    pub(super) fn take(&mut self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        loop {
            let Some(raw) = self.peek()? else { return Ok(None) };
            let end = raw.end;
            match compare_paths(raw.path().ok_or(TreeError)?, path) {
                Ordering::Greater => return Ok(None),
                Ordering::Equal => {
                    let entry = raw.decode().ok_or(TreeError)?;
                    self.next = end;
                    return Ok(Some(entry));
                }
                Ordering::Less => self.pass(end),
            }
        }
    }

    /// The last one of those that nobody asked for is taken off the list.
    pub(super) fn take_other(&mut self) -> Result<Option<TreeEntry>, TreeError> {
        while let Some(end) = self.peek()?.map(|raw| raw.end) {
            self.pass(end);
        }
        let Some(place) = self.others.pop() else { return Ok(None) };
        read(&self.bytes, place).and_then(|raw| raw.decode()).map(Some).ok_or(TreeError)
    }

    /// Nobody asked for the next entry, which ends at `end`.
    fn pass(&mut self, end: Place) {
        self.others.push(self.next);
        self.next = end;
    }

    /// Those that nobody asked for, as far as they can be read.
    fn into_others(mut self) -> impl Iterator<Item = TreeEntry> {
        while let Ok(Some(end)) = self.peek().map(|raw| raw.map(|raw| raw.end)) {
            self.pass(end);
        }
        self.others.into_iter().filter_map(move |place| read(&self.bytes, place)?.decode())
    }
}

/// Writes a tree in order, and notes later how its files came along.
#[derive(Debug)]
pub(super) struct TreeWriter {
    bytes: Vec<u8>,
    /// Where entries begin, as far as somebody looked for a path.
    places: Vec<Place>,
}

impl Default for TreeWriter {
    fn default() -> Self {
        Self { bytes: vec![VERSION], places: Vec::new() }
    }
}

impl TreeWriter {
    /// Adds a file behind all others. It is incomplete.
    pub(super) fn push(&mut self, stat: FileStat) -> (Place, FileStat) {
        let place = self.bytes.len();
        let has_contents = stat.kind() == FileKind::Regular && !stat.is_hard_link();
        let message = wire::Stat::from(stat);
        self.begin(if has_contents { SLOT } else { 0 });
        let length = message.encoded_len();
        self.bytes.reserve(length + encoded_len_varint(length as u64));
        encode_varint(length as u64, &mut self.bytes);
        message.encode_raw(&mut self.bytes);
        (place, message.into())
    }

    fn begin(&mut self, flags: u8) {
        self.bytes.push(flags);
        if flags & SLOT != 0 {
            self.bytes.extend([0; DIGEST_BYTES]);
        }
    }

    /// Adds an entry of another tree behind all others.
    fn push_entry(&mut self, entry: TreeEntry) {
        let (place, _) = self.push(entry.stat);
        self.note(place, &entry.digest, entry.complete, entry.fresh);
    }

    /// The file is there as its stat says.
    pub(super) fn complete(&mut self, place: Place, digest: Option<ContentDigest>) {
        self.note(place, &digest, true, true);
    }

    /// The file is there as it was before.
    pub(super) fn keep(&mut self, place: Place, before: &TreeEntry) {
        self.note(place, &before.digest, true, false);
    }

    fn note(&mut self, place: Place, digest: &Option<ContentDigest>, complete: bool, fresh: bool) {
        let mut flags = self.bytes[place] & SLOT;
        if complete {
            flags |= COMPLETE;
        }
        if fresh {
            flags |= FRESH;
        }
        if let Some(digest) = digest
            && flags & SLOT != 0
        {
            flags |= HAS_DIGEST;
            self.bytes[place + 1..][..DIGEST_BYTES].copy_from_slice(digest);
        }
        self.bytes[place] = flags;
    }

    /// The file at `path`, of those that were added.
    pub(super) fn get(&mut self, path: &str) -> Option<TreeEntry> {
        let known = match self.places.last() {
            Some(&last) => read(&self.bytes, last).map_or(last, |raw| raw.end),
            None => 1,
        };
        self.places.extend(places(&self.bytes, known));
        find(&self.bytes, &self.places, path)
            .and_then(|place| read(&self.bytes, place))
            .map(|raw| raw.entry())
    }

    /// What a place's entry says.
    pub(super) fn at(&self, place: Place) -> TreeEntry {
        read(&self.bytes, place).expect("was written before").entry()
    }

    /// Puts a file where its path belongs, in place of one that is there. No place that was given before holds any more.
    pub(super) fn insert(&mut self, stat: FileStat) {
        let entry = TreeEntry { stat, digest: None, complete: false, fresh: false };
        let tree = std::mem::take(self).finish();
        *self = merge(&tree, std::iter::once(entry));
    }

    /// The place of a file that was put in.
    pub(super) fn place(&mut self, path: &str) -> Option<Place> {
        self.get(path)?;
        find(&self.bytes, &self.places, path)
    }

    /// The tree.
    pub(super) fn finish(mut self) -> Tree {
        self.bytes.shrink_to_fit();
        Tree { bytes: self.bytes, places: OnceLock::new() }
    }

    /// The tree, and what of the one before nobody spoke of.
    pub(super) fn finish_with(self, before: TreeReader) -> Tree {
        let tree = self.finish();
        let mut others = before.into_others().peekable();
        if others.peek().is_none() { tree } else { merge(&tree, others).finish() }
    }
}

/// Both in order; of two with the same path the second one.
fn merge(first: &Tree, second: impl Iterator<Item = TreeEntry>) -> TreeWriter {
    let (mut first, mut second) = (first.iter().peekable(), second.peekable());
    let mut merged = TreeWriter::default();
    loop {
        let order = match (first.peek(), second.peek()) {
            (None, None) => return merged,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => compare_paths(&a.stat.path, &b.stat.path),
        };
        let skipped = if order == Ordering::Equal { first.next() } else { None };
        drop(skipped);
        let entry = if order == Ordering::Less { first.next() } else { second.next() };
        merged.push_entry(entry.expect("was peeked at"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsync::GoMode;

    fn file(path: &str) -> FileStat {
        let mode = GoMode::new(FileKind::Regular, 0o644);
        FileStat { path: path.into(), mode, mtime_ns: -5, ..Default::default() }
    }

    fn tree(files: &[(&str, Option<u8>)]) -> Tree {
        let mut writer = TreeWriter::default();
        for (path, digest) in files {
            let (place, _) = writer.push(file(path));
            if let Some(byte) = digest {
                writer.complete(place, Some([*byte; DIGEST_BYTES]));
            }
        }
        writer.finish()
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.iter().map(|entry| entry.stat.path).collect()
    }

    #[test]
    fn a_tree_survives_storage() {
        let tree = tree(&[("a", None), ("a/b", Some(7)), ("a-b", Some(8))]);
        assert_eq!(paths(&tree), ["a", "a/b", "a-b"]);
        assert_eq!(tree.len(), 3);
        assert_eq!(tree.get("a/b").and_then(|entry| entry.digest), Some([7; DIGEST_BYTES]));
        assert_eq!(tree.get("a").map(|entry| (entry.complete, entry.digest)), Some((false, None)));
        assert_eq!(tree.get("b"), None);
        let bytes = tree.encoded().to_vec();
        assert_eq!(Tree::decode(bytes.clone()), Ok(tree));
        assert_eq!(Tree::decode(Vec::new()), Ok(Tree::new()));
        assert_eq!(Tree::decode(vec![1]), Err(TreeError));
        for end in 1..bytes.len() {
            // Cut at a boundary it is a shorter tree, elsewhere none; never a panic.
            let _ = Tree::decode(bytes[..end].to_vec());
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xff;
            if let Ok(tree) = Tree::decode(damaged) {
                let _ = (paths(&tree), tree.get("a/b"));
            }
        }
    }

    #[test]
    fn what_nobody_asks_for_is_left() {
        let before =
            tree(&[("a", Some(1)), ("a/x", Some(2)), ("b", Some(3)), ("c", Some(4)), ("d", Some(5))]);
        let mut reader = TreeReader::new(before.encoded().to_vec()).unwrap();
        assert!(reader.take("a").unwrap().is_some());
        assert!(reader.take("a-").unwrap().is_none());
        let known = reader.take("c").unwrap().expect("is there");
        assert_eq!(known.digest, Some([4; DIGEST_BYTES]));
        let mut after = TreeWriter::default();
        for path in ["a", "a-", "c"] {
            after.push(file(path));
        }
        assert_eq!(paths(&after.finish_with(reader)), ["a", "a/x", "a-", "b", "c", "d"]);
    }

    #[test]
    fn others_come_last_first() {
        let before = tree(&[("a", None), ("a/x", None), ("b", None)]);
        let mut reader = TreeReader::new(before.encoded().to_vec()).unwrap();
        assert!(reader.take("b").unwrap().is_some());
        let mut others = Vec::new();
        while let Some(entry) = reader.take_other().unwrap() {
            others.push(entry.stat.path);
        }
        assert_eq!(others, ["a/x", "a"]);
        assert_eq!(paths(&TreeWriter::default().finish_with(reader)), [""; 0]);
    }

    #[test]
    fn one_that_comes_late_gets_its_place() {
        let mut writer = TreeWriter::default();
        for path in ["a", "c", "c/d"] {
            writer.push(file(path));
        }
        assert!(writer.get("c").is_some());
        writer.insert(file("b"));
        let place = writer.place("b").expect("is there");
        writer.complete(place, Some([9; DIGEST_BYTES]));
        writer.insert(FileStat { size: 3, ..file("a") });
        let tree = writer.finish();
        assert_eq!(paths(&tree), ["a", "b", "c", "c/d"]);
        assert_eq!(tree.get("a").map(|entry| entry.stat.size), Some(3));
        assert_eq!(tree.get("b").and_then(|entry| entry.digest), Some([9; DIGEST_BYTES]));
    }
}
