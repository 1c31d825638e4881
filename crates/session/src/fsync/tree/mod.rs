//! What a directory holds after a transfer: the comparison for the next one.
//!
//! A tree is kept as it is stored: entries one after the other, in the order of path components, some 130 bytes for a file. A transfer reads
//! the last one's from its beginning and writes its own to its end, both in that order. Long ones are in files, so that no transfer
//! has more in memory than the bounds of its spools say, and an eighth of a byte for each file.

mod entry;
mod index;
mod reader;
mod writer;

use std::borrow::Borrow;
use std::io::{self, BufRead};
use std::sync::Arc;

use kiln_spool::{Reader, Spool, Spools};

use super::stat::FileStat;
pub(super) use entry::Place;
use index::Index;
pub(super) use reader::TreeReader;
pub(super) use writer::TreeWriter;

/// First byte of an encoded tree.
const VERSION: u8 = 2;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// SHA-256 of a file's contents.
pub type ContentDigest = [u8; DIGEST_BYTES];

/// Files in the order of path components. Clones share them.
#[derive(Debug, Clone)]
pub struct Tree {
    stored: Arc<Spool>,
    index: Arc<Index>,
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

/// Why a tree cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// It is none.
    #[error("invalid encoded tree")]
    Invalid,
    /// The file that it is in fails.
    #[error("list of files cannot be read or written")]
    Io(#[from] io::Error),
}

impl From<TreeError> for io::Error {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Invalid => Self::new(io::ErrorKind::InvalidData, error.to_string()),
            TreeError::Io(error) => error,
        }
    }
}

impl Tree {
    /// Nothing.
    pub fn new(spools: &Spools) -> Self {
        TreeWriter::new(spools, true).finish()
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn get(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        let place = self.index.find(&self.stored, path)?;
        place.map(|place| entry::at(&self.stored, place, &mut Vec::new())?.decode()).transpose()
    }

    /// All files in order. After an error there are no more.
    pub fn iter(&self) -> Entries<&Spool> {
        Entries::new(&self.stored)
    }

    /// How many files there are.
    pub fn len(&self) -> u64 {
        self.index.entries()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For storing.
    pub fn stored(&self) -> &Arc<Spool> {
        &self.stored
    }

    /// What [`Tree::stored`] gave. No bytes at all are an empty tree.
    ///
    /// # Errors
    /// It is none, or cannot be read.
    pub fn decode(stored: Arc<Spool>) -> Result<Self, TreeError> {
        let mut index = Index::default();
        // Looks at the first byte.
        TreeReader::new(stored.clone())?;
        let mut entries = Entries::new(&*stored);
        loop {
            let place = entries.reader.offset();
            if entries.next().transpose()?.is_none() {
                return Ok(Self { stored, index: Arc::new(index) });
            }
            index.add(place);
        }
    }
}

/// Entries of a tree, in order.
#[derive(Debug)]
pub struct Entries<S> {
    reader: Reader<S>,
    failed: bool,
}

impl<S: Borrow<Spool>> Entries<S> {
    /// All of a tree, behind the byte that says that it is one.
    fn new(spool: S) -> Self {
        Self { reader: Reader::new(spool, 1), failed: false }
    }
}

impl<S: Borrow<Spool>> Iterator for Entries<S> {
    type Item = Result<TreeEntry, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let read = |reader: &mut Reader<S>| {
            let Some(raw) = entry::next(reader)? else { return Ok(None) };
            let (entry, length) = (raw.decode()?, raw.length);
            reader.consume(length);
            Ok(Some(entry))
        };
        let entry = read(&mut self.reader).transpose();
        self.failed = matches!(entry, Some(Err(_)));
        entry
    }
}

#[cfg(test)]
mod tests {
    use kiln_spool::Bounds;
    use proptest::prelude::*;

    use super::*;
    use crate::fsync::{FileKind, GoMode, compare_paths};

    fn memory() -> Spools {
        Spools::new(std::path::Path::new("/nowhere/at/all"))
    }

    /// Nearly nothing is in memory.
    fn tiny(dir: &tempfile::TempDir) -> Spools {
        Spools::new(dir.path()).with_bounds(Bounds { short_bytes_max: 200, tail_bytes_max: 100 })
    }

    fn both(test: impl Fn(&Spools)) {
        test(&memory());
        test(&tiny(&tempfile::tempdir().unwrap()));
    }

    fn file(path: &str) -> FileStat {
        let mode = GoMode::new(FileKind::Regular, 0o644);
        FileStat { path: path.into(), mode, mtime_ns: -5, ..Default::default() }
    }

    fn tree(spools: &Spools, files: &[(&str, Option<u8>)]) -> Tree {
        let mut writer = TreeWriter::new(spools, true);
        for (path, digest) in files {
            let (place, _) = writer.push(file(path)).unwrap();
            if let Some(byte) = digest {
                writer.complete(place, Some([*byte; DIGEST_BYTES])).unwrap();
            }
        }
        writer.finish()
    }

    fn paths(tree: &Tree) -> Vec<String> {
        tree.iter().map(|entry| entry.unwrap().stat.path).collect()
    }

    fn get(tree: &Tree, path: &str) -> Option<TreeEntry> {
        tree.get(path).unwrap()
    }

    fn bytes(tree: &Tree) -> Vec<u8> {
        let mut bytes = Vec::new();
        tree.stored().write_to(&mut bytes).unwrap();
        bytes
    }

    fn stored(spools: &Spools, bytes: &[u8]) -> Arc<Spool> {
        let mut spool = spools.spool();
        spool.append(bytes).unwrap();
        Arc::new(spool)
    }

    fn entries(tree: &Tree) -> Vec<TreeEntry> {
        tree.iter().map(Result::unwrap).collect()
    }

    #[test]
    fn a_tree_survives_storage() {
        both(|spools| {
            let tree = tree(spools, &[("a", None), ("a/b", Some(7)), ("a-b", Some(8))]);
            assert_eq!(paths(&tree), ["a", "a/b", "a-b"]);
            assert_eq!(tree.len(), 3);
            assert_eq!(get(&tree, "a/b").and_then(|entry| entry.digest), Some([7; DIGEST_BYTES]));
            assert_eq!(get(&tree, "a").map(|entry| (entry.complete, entry.digest)), Some((false, None)));
            assert_eq!(get(&tree, "b"), None);
            let bytes = bytes(&tree);
            let decode = |bytes: &[u8]| Tree::decode(stored(spools, bytes));
            assert_eq!(entries(&decode(&bytes).unwrap()), entries(&tree));
            assert!(decode(&[]).unwrap().is_empty() && Tree::new(spools).is_empty());
            assert!(matches!(decode(&[1]), Err(TreeError::Invalid)));
            for end in 1..bytes.len() {
                // Cut at a boundary it is a shorter tree, elsewhere none; never a panic.
                let _ = decode(&bytes[..end]);
            }
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 0xff;
                if let Ok(tree) = decode(&damaged) {
                    let _ = (paths(&tree), tree.get("a/b"));
                }
                // Nor where nobody has looked before.
                if let Ok(mut reader) = TreeReader::new(stored(spools, &damaged)) {
                    while reader.take_other().is_ok_and(|entry| entry.is_some()) {}
                }
            }
        });
    }

    #[test]
    fn an_entry_that_is_longer_than_any_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let spools = tiny(&dir);
        // Says that it has a gigabyte.
        let mut bytes = vec![VERSION, 0, 0x80, 0x80, 0x80, 0x80, 4];
        bytes.resize(5000, 0);
        let spool = stored(&spools, &bytes);
        assert!(matches!(Tree::decode(spool.clone()), Err(TreeError::Invalid)));
        assert!(matches!(TreeReader::new(spool).unwrap().take("a"), Err(TreeError::Invalid)));
    }

    #[test]
    fn what_nobody_asks_for_is_left() {
        both(|spools| {
            let list = [("a", Some(1)), ("a/x", Some(2)), ("b", Some(3)), ("c", Some(4)), ("d", Some(5))];
            let before = tree(spools, &list);
            let mut reader = TreeReader::new(before.stored().clone()).unwrap();
            assert!(reader.take("a").unwrap().is_some());
            assert!(reader.take("a-").unwrap().is_none());
            let known = reader.take("c").unwrap().expect("is there");
            assert_eq!(known.digest, Some([4; DIGEST_BYTES]));
            let mut after = TreeWriter::new(spools, true);
            for path in ["a", "a-", "c"] {
                after.push(file(path)).unwrap();
            }
            assert_eq!(paths(&after.finish_with(reader).unwrap()), ["a", "a/x", "a-", "b", "c", "d"]);
        });
    }

    #[test]
    fn others_come_last_first() {
        both(|spools| {
            let before = tree(spools, &[("a", None), ("a/x", None), ("b", None)]);
            let mut reader = TreeReader::new(before.stored().clone()).unwrap();
            assert!(reader.take("b").unwrap().is_some());
            let mut others = Vec::new();
            while let Some(entry) = reader.take_other().unwrap() {
                others.push(entry.stat.path);
            }
            assert_eq!(others, ["a/x", "a"]);
            assert_eq!(paths(&TreeWriter::new(spools, true).finish_with(reader).unwrap()), [""; 0]);
        });
    }

    #[test]
    fn one_that_comes_late_gets_its_place() {
        both(|spools| {
            let mut writer = TreeWriter::new(spools, true);
            for path in ["a", "c", "c/d"] {
                writer.push(file(path)).unwrap();
            }
            assert!(writer.get("c").unwrap().is_some());
            writer.insert(file("b")).unwrap();
            let place = writer.place("b").unwrap().expect("is there");
            writer.complete(place, Some([9; DIGEST_BYTES])).unwrap();
            writer.insert(FileStat { size: 3, ..file("a") }).unwrap();
            let tree = writer.finish();
            assert_eq!(paths(&tree), ["a", "b", "c", "c/d"]);
            assert_eq!(get(&tree, "a").map(|entry| entry.stat.size), Some(3));
            assert_eq!(get(&tree, "b").and_then(|entry| entry.digest), Some([9; DIGEST_BYTES]));
        });
    }

    #[test]
    fn there_may_be_no_room() {
        let bounds = Bounds { short_bytes_max: 200, tail_bytes_max: 100 };
        let mut writer = TreeWriter::new(&memory().with_bounds(bounds), true);
        let error = (0..10).find_map(|number| writer.push(file(&format!("f{number}"))).err());
        assert!(matches!(error, Some(TreeError::Io(error)) if error.kind() == io::ErrorKind::NotFound));
    }

    proptest! {
        /// What is in a file is what would be in memory.
        #[test]
        fn bounds_change_nothing(
            names in prop::collection::btree_set("[a-d]{1,3}(/[a-d]{1,2}){0,2}", 0..400),
            noted in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
            asked in prop::collection::btree_set("[a-d]{1,3}(/[a-d]{1,2}){0,2}", 0..100),
            bounds in (0..4000_usize, 0..2000_usize),
        ) {
            let mut names: Vec<String> = names.into_iter().collect();
            names.sort_by(|a, b| compare_paths(a, b));
            let mut asked: Vec<String> = asked.into_iter().collect();
            asked.sort_by(|a, b| compare_paths(a, b));
            let dir = tempfile::tempdir().unwrap();
            let bounds = Bounds { short_bytes_max: bounds.0, tail_bytes_max: bounds.1 };
            let outcome = |spools: &Spools| {
                let mut writer = TreeWriter::new(spools, true);
                let places: Vec<Place> = names.iter().map(|name| writer.push(file(name)).unwrap().0).collect();
                for (index, byte) in &noted {
                    if !places.is_empty() {
                        writer.complete(*index.get(&places), Some([*byte; DIGEST_BYTES])).unwrap();
                    }
                }
                let tree = writer.finish();
                let found: Vec<_> = asked.iter().map(|path| get(&tree, path)).collect();
                for (path, found) in asked.iter().zip(&found) {
                    assert_eq!(names.contains(path), found.is_some(), "{path}");
                }
                let mut reader = TreeReader::new(tree.stored().clone()).unwrap();
                let mut after = TreeWriter::new(spools, true);
                for path in &asked {
                    let before = reader.take(path).unwrap();
                    let (place, _) = after.push(file(path)).unwrap();
                    if let Some(before) = before {
                        after.keep(place, &before).unwrap();
                    }
                }
                (bytes(&tree), found, bytes(&after.finish_with(reader).unwrap()))
            };
            prop_assert_eq!(outcome(&memory()), outcome(&Spools::new(dir.path()).with_bounds(bounds)));
        }
    }
}
