//! Mount stubs: files and directories that are made in a root file system only so that something can be mounted on them.
//! They are no result of the step, so those that are still empty afterwards go away.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};

use crate::beneath::{Resolved, Root};

/// Mount points that were missing before the step.
#[derive(Debug, Default)]
pub struct Stubs {
    missing: Vec<Resolved>,
}

impl Stubs {
    /// Notes which of the destinations are missing; with their missing parents when `recursive`.
    pub fn record<'a, Fd: AsFd>(
        root: &Root<Fd>,
        destinations: impl IntoIterator<Item = &'a str>,
        recursive: bool,
    ) -> Self {
        let mut missing = Vec::new();
        for destination in ["/etc/resolv.conf", "/etc/hosts"].into_iter().chain(destinations) {
            let Ok(mut path) = root.resolve(Path::new(destination)) else { continue };
            while !path.is_root() && root.exists(&path).is_ok_and(|there| !there) {
                let parent = path.parent();
                missing.push(path);
                match parent {
                    Some(parent) if recursive => path = parent,
                    _ => break,
                }
            }
        }
        Self { missing }
    }

    /// Removes what was missing and is empty. The times of the directories around stay as the step left them, which keeps
    /// builds reproducible.
    pub fn remove<Fd: AsFd>(self, root: &Root<Fd>) {
        for path in &self.missing {
            // Resolved paths are opened without following links: what the step replaced by a link stays.
            if let Err(error) = remove_stub(root, path) {
                tracing::debug!(path = %path.as_path().display(), %error, "mount stub stays");
            }
        }
    }
}

fn remove_stub<Fd: AsFd>(root: &Root<Fd>, path: &Resolved) -> rustix::io::Result<()> {
    let stat = match root.stat(path) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if !is_dir && stat.st_size != 0 {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    let parent = root.open_at(&parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let before = rustix::fs::fstat(&parent)?;
    match root.remove(path, is_dir) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => return Ok(()),
        Err(error) => return Err(error),
    }
    let times = Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: before.st_atime as _,
            tv_nsec: before.st_atime_nsec as _,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: before.st_mtime as _,
            tv_nsec: before.st_mtime_nsec as _,
        },
    };
    rustix::fs::utimensat(&parent, c".", &times, AtFlags::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_empty_stubs_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open_path(dir.path()).unwrap();
        let at = |p: &str| dir.path().join(p);
        fs::create_dir_all(at("test/qux")).unwrap();
        let destinations = ["/test/foo", "/test/bar/x/y", "/test/baz/x", "/test/qux", "/test/link"];
        let stubs = Stubs::record(&root, destinations, true);
        for d in ["test/foo", "test/bar/x/y", "test/baz/x", "etc"] {
            fs::create_dir_all(at(d)).unwrap();
        }
        fs::write(at("test/baz/keep"), "").unwrap();
        fs::write(at("etc/hosts"), "").unwrap();
        fs::write(at("etc/resolv.conf"), "kept").unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", at("test/link")).unwrap();
        let before = fs::metadata(at("test/qux")).unwrap().modified().unwrap();
        let parent_before = fs::metadata(at("test")).unwrap().modified().unwrap();
        stubs.remove(&root);
        let mut names: Vec<_> = fs::read_dir(at("test"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["baz", "link", "qux"]);
        assert!(at("elsewhere").is_dir());
        assert!(at("test/baz/keep").exists() && !at("test/baz/x").exists());
        assert!(!at("etc/hosts").exists() && at("etc/resolv.conf").exists());
        assert_eq!(fs::metadata(at("test/qux")).unwrap().modified().unwrap(), before);
        assert_eq!(fs::metadata(at("test")).unwrap().modified().unwrap(), parent_before);
    }

    #[test]
    fn parents_stay_unless_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open_path(dir.path()).unwrap();
        let stubs = Stubs::record(&root, ["/a/b"], false);
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        stubs.remove(&root);
        assert!(dir.path().join("a").is_dir() && !dir.path().join("a/b").exists());
    }
}
