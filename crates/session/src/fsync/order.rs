//! The order of paths on the wire, and what a hostile sender could do to it.

use std::cmp::Ordering;

use super::error::SyncError;
use super::mode::FileKind;
use super::receive::ReceiveLimits;
use super::stat::FileStat;

/// Compares by components: a slash comes before all other characters.
pub fn compare_paths(a: &str, b: &str) -> Ordering {
    let rank = |byte: u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    a.bytes().map(rank).cmp(b.bytes().map(rank))
}

/// Lets only clean relative paths through, in order, each below directories that came before. Where hard links lead is for the sink to see.
pub(super) struct Validator {
    /// Open directories, outermost first, each with the last name seen in it. The first is the top.
    parents: Vec<(String, String)>,
    count: u64,
    limits: ReceiveLimits,
}

impl Validator {
    pub(super) fn new(limits: ReceiveLimits) -> Self {
        Self { parents: vec![(String::new(), String::new())], count: 0, limits }
    }

    pub(super) fn check(&mut self, stat: &FileStat) -> Result<(), SyncError> {
        let path = stat.path.as_str();
        self.count += 1;
        if self.count > self.limits.entries_max {
            return Err(SyncError::Limit { what: "files", limit: self.limits.entries_max });
        }
        if path.len() > self.limits.path_bytes_max {
            return Err(SyncError::Limit { what: "path bytes", limit: self.limits.path_bytes_max as u64 });
        }
        check_path(path)?;
        let (dir, base) = path.rsplit_once('/').unwrap_or(("", path));
        // Directories that are left are closed.
        while self.parents.last().is_some_and(|(open, _)| open != dir) && self.parents.len() > 1 {
            self.parents.pop();
        }
        let (open, last) = self.parents.last_mut().expect("the top is never closed");
        if open != dir || last.as_bytes() >= base.as_bytes() {
            let before = if open.is_empty() { last.clone() } else { format!("{open}/{last}") };
            return Err(SyncError::protocol(format!("changes out of order: {path:?} {before:?}")));
        }
        *last = base.to_string();
        match stat.kind() {
            FileKind::Directory => self.parents.push((path.to_string(), String::new())),
            FileKind::Other => {
                return Err(SyncError::protocol(format!("invalid mode {:#x} of {path:?}", stat.mode.0)));
            }
            _ => {}
        }
        if stat.size < 0 || stat.linkname.contains('\0') {
            return Err(SyncError::protocol(format!("invalid metadata of {path:?}")));
        }
        Ok(())
    }
}

/// Whether a path is clean and stays below the top.
pub(super) fn check_path(path: &str) -> Result<(), SyncError> {
    let error = |what: &str| Err(SyncError::protocol(format!("{what} {path:?}: invalid argument")));
    if path.starts_with('/') {
        return error("absolute path");
    }
    if path.split('/').any(|part| part == "..") {
        return error("escape check");
    }
    if path.contains('\0') || path.split('/').any(|part| part.is_empty() || part == ".") {
        return error("unclean path");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsync::GoMode;

    fn stat(path: &str, kind: FileKind) -> FileStat {
        FileStat { path: path.into(), mode: GoMode::new(kind, 0o755), ..Default::default() }
    }

    fn check(list: &[(&str, FileKind)]) -> Result<(), String> {
        let mut validator = Validator::new(ReceiveLimits::default());
        list.iter()
            .try_for_each(|(path, kind)| validator.check(&stat(path, *kind)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn slashes_come_first() {
        let mut paths = ["a.b", "a/b", "a", "a-b", "a/b/c", "b"];
        paths.sort_by(|a, b| compare_paths(a, b));
        assert_eq!(paths, ["a", "a/b", "a/b/c", "a-b", "a.b", "b"]);
    }

    #[test]
    fn orders() {
        use FileKind::{Directory as D, Regular as R};
        assert_eq!(
            check(&[("a", D), ("a/b", R), ("a-b", R), ("b", D), ("b/c", D), ("b/c/d", R), ("c", R)]),
            Ok(())
        );
        assert!(check(&[("b", R), ("a", R)]).is_err());
        assert!(check(&[("a", R), ("a", R)]).is_err());
        assert!(check(&[("a/b", R)]).is_err());
        assert!(check(&[("a", R), ("a/b", R)]).is_err());
        assert!(check(&[("a", D), ("b", R), ("a/b", R)]).is_err());
        assert!(check(&[("a", D), ("a/x", D), ("a/y", R), ("a/x/z", R)]).is_err());
    }

    #[test]
    fn paths_that_are_none() {
        for path in ["", ".", "..", "/a", "../a", "a/../b", "a//b", "a/", "./a", "a/.", "a\0b", "a/.."] {
            assert!(check(&[("a", FileKind::Directory), (path, FileKind::Regular)]).is_err(), "{path:?}");
        }
        assert_eq!(check(&[("...", FileKind::Regular), ("..a", FileKind::Regular)]), Ok(()));
    }

    #[test]
    fn limits() {
        let mut validator = Validator::new(ReceiveLimits { entries_max: 1, ..Default::default() });
        validator.check(&stat("a", FileKind::Regular)).expect("is the first");
        assert!(matches!(validator.check(&stat("b", FileKind::Regular)), Err(SyncError::Limit { .. })));
    }
}
