//! What a directory holds after a transfer: the comparison for the next one.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use kiln_oci::Digest;
use kiln_proto::fsutil_types as wire;
use kiln_proto::prost::Message;

use super::order::compare_paths;
use super::stat::FileStat;

/// First byte of an encoded tree.
const VERSION: u8 = 1;

const COMPLETE: u8 = 1;
const HAS_DIGEST: u8 = 2;

/// Files by path, in the order of path components.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathKey, TreeEntry>);

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// As it was sent, with the owner that was set.
    pub stat: FileStat,
    /// SHA-256 of a regular file's contents; none for everything else, hard links included.
    pub digest: Option<Digest>,
    /// False: a transfer ended while it was written. It is there in some form and equals nothing.
    pub complete: bool,
}

/// An encoded tree that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid encoded tree")]
pub struct TreeError;

#[derive(Debug, Clone, PartialEq, Eq)]
struct PathKey(Box<str>);

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_paths(&self.0, &other.0)
    }
}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Tree {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The file at `path`.
    pub fn get(&self, path: &str) -> Option<&TreeEntry> {
        self.0.get(&PathKey(path.into()))
    }

    /// Adds or replaces a file, by the path in its stat.
    pub fn insert(&mut self, entry: TreeEntry) {
        self.0.insert(PathKey(entry.stat.path.as_str().into()), entry);
    }

    /// Takes a file out.
    pub fn remove(&mut self, path: &str) -> Option<TreeEntry> {
        self.0.remove(&PathKey(path.into()))
    }

    /// All files in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &TreeEntry> {
        self.0.values()
    }

    /// All files in order, owned.
    pub fn into_entries(self) -> impl Iterator<Item = TreeEntry> {
        self.0.into_values()
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For storing: a version, then for each file flags, the length-delimited stat and 32 bytes of digest.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        for entry in self.iter() {
            let digest = entry.digest.as_ref().map(Digest::to_bytes).filter(|digest| digest.len() == 32);
            out.put_u8(
                if entry.complete { COMPLETE } else { 0 } | if digest.is_some() { HAS_DIGEST } else { 0 },
            );
            out.extend(wire::Stat::from(&entry.stat).encode_length_delimited_to_vec());
            out.extend(digest.unwrap_or_default());
        }
        out
    }

    /// What [`Tree::encode`] gave.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let Some((&VERSION, mut bytes)) = bytes.split_first() else { return Err(TreeError) };
        let mut tree = Self::new();
        while bytes.has_remaining() {
            let flags = bytes.get_u8();
            let stat = wire::Stat::decode_length_delimited(&mut bytes).map_err(|_| TreeError)?;
            let digest = if flags & HAS_DIGEST == 0 {
                None
            } else {
                let (raw, rest) = bytes.split_first_chunk::<32>().ok_or(TreeError)?;
                bytes = rest;
                Some(Digest::from_sha256(*raw))
            };
            tree.insert(TreeEntry { stat: stat.into(), digest, complete: flags & COMPLETE != 0 });
        }
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_survives_storage() {
        let mut tree = Tree::new();
        for (path, digest, complete) in [("a-b", None, true), ("a/b", Some("x"), true), ("a", None, false)] {
            let stat = FileStat { path: path.into(), mtime_ns: -5, ..Default::default() };
            tree.insert(TreeEntry { stat, digest: digest.map(Digest::sha256_of), complete });
        }
        let paths: Vec<&str> = tree.iter().map(|entry| entry.stat.path.as_str()).collect();
        assert_eq!(paths, ["a", "a/b", "a-b"]);
        let bytes = tree.encode();
        assert_eq!(Tree::decode(&bytes), Ok(tree));
        assert_eq!(Tree::decode(&[]), Err(TreeError));
        for end in 1..bytes.len() {
            // Cut at a boundary it is a shorter tree, elsewhere none; never a panic.
            let _ = Tree::decode(&bytes[..end]);
        }
    }
}
