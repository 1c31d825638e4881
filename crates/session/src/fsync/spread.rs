//! A hint to ext4 on where new files go, for as long as they are being made.

use std::os::fd::OwnedFd;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

/// A directory whose subdirectories begin in parts of the disk of their own, until this is dropped.
///
/// ext4 puts everything below one directory close together. Without a journal it also keeps removed inodes for minutes and looks at
/// each of them for every new file, so that a tree that lands where another one was removed takes ten times as long. The sign that
/// what lies in a directory has nothing to do with each other (`chattr +T`) keeps it away from there. Other file systems know nothing
/// of it, and nothing depends on it.
#[derive(Debug)]
pub(super) struct Spread {
    dir: OwnedFd,
    flags: IFlags,
}

impl Spread {
    /// Gives the hint for what is made in this directory from now on. None: it has it, or cannot take it.
    pub(super) fn new(dir: OwnedFd) -> Option<Self> {
        let flags = ioctl_getflags(&dir).ok()?;
        if flags.contains(IFlags::TOPDIR) {
            return None;
        }
        ioctl_setflags(&dir, flags | IFlags::TOPDIR).ok()?;
        Some(Self { dir, flags })
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        // What is left of it is a hint.
        let _ = ioctl_setflags(&self.dir, self.flags);
    }
}
