//! What is said of one path of a layer, and the order of paths.

use std::cmp::Ordering;

use crate::encode::Hash;

/// What a table says of one path of its layer.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Relative to the layer's root, without leading slash; empty for the root.
    pub path: &'a [u8],
    /// What it is.
    pub kind: RecordKind<'a>,
    /// Digest of the file's header: kind, mode, owner, device, link target, extended attributes.
    pub header: &'a Hash,
    /// SHA-256 of a regular file's bytes, once somebody asked.
    pub content: Option<&'a Hash>,
}

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordKind<'a> {
    /// A regular file.
    File,
    /// A folder.
    Dir {
        /// Hides what lower layers have here.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// As it is written there.
        target: &'a [u8],
    },
    /// Devices, fifos and sockets: nothing but a header.
    Special,
    /// The path is removed.
    Whiteout,
}

impl Record<'_> {
    /// Whether it is a folder.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, RecordKind::Dir { .. })
    }

    /// Whether nothing of what lower layers have below this path shows.
    pub fn replaces(&self) -> bool {
        !matches!(self.kind, RecordKind::Dir { opaque: false })
    }
}

/// Order of paths in which what is in a folder follows it at once: components compare as bytes, and a shorter list of
/// components comes first.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    order_after(shared_len(a, b), a, b)
}

/// [`path_order`] of paths of which it is known how much they share.
pub(super) fn order_after(shared: usize, a: &[u8], b: &[u8]) -> Ordering {
    let slash_first = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.get(shared).map(slash_first).cmp(&b.get(shared).map(slash_first))
}

/// How many bytes two paths have in common at their beginnings.
pub(super) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Whether `path` lies somewhere below the folder `dir`.
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    if dir.is_empty() {
        !path.is_empty()
    } else {
        path.len() > dir.len() && path.starts_with(dir) && path[dir.len()] == b'/'
    }
}

/// The last component of a path.
pub fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}
