//! Making files: by helper threads, one for each directory, or on the spot.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::meta::Usage;
use crate::overlay::{self, Format};
use crate::tar::{Entry, EntryKind};

/// Files waiting for one writer.
const JOBS_WAITING: usize = 256;
/// How many things left out are named.
const SKIPPED_MAX: usize = 16;
/// What a file's data is rounded up to on disk.
const DISK_BLOCK_BYTES: u64 = 4096;

/// An open directory of the layer.
#[derive(Debug)]
pub(super) struct Handle {
    pub fd: OwnedFd,
    pub id: u64,
}

/// One file to make.
pub(super) struct Job {
    pub dir: Arc<Handle>,
    pub name: OsString,
    pub what: What,
}

pub(super) enum What {
    /// An entry that is neither directory nor hard link, with all of its content.
    Entry(Box<Entry>, Vec<Bytes>),
    /// A removed name.
    Whiteout,
}

/// How files are made, and what came of it.
pub(super) struct Maker {
    format: Format,
    process: Process,
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    usage: Usage,
    skipped: Vec<String>,
}

/// Facts about this process that spare system calls.
struct Process {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Maker {
    pub(super) fn new(format: Format) -> Self {
        // Asking for the umask would change it for a moment, for all threads; the kernel also says it here.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777);
        let process = Process {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            umask,
        };
        Self { format, process, done: Mutex::default() }
    }

    pub(super) fn finish(self) -> (Usage, Vec<String>) {
        let done = self.done.into_inner().unwrap_or_else(|poison| poison.into_inner());
        (done.usage, done.skipped)
    }

    pub(super) fn count(&self, bytes: u64) {
        let mut done = self.done.lock().unwrap_or_else(|poison| poison.into_inner());
        done.usage += Usage { bytes: bytes.next_multiple_of(DISK_BLOCK_BYTES), inodes: 1 };
    }

    pub(super) fn skip(&self, what: impl FnOnce() -> String) {
        let mut done = self.done.lock().unwrap_or_else(|poison| poison.into_inner());
        if done.skipped.len() < SKIPPED_MAX {
            done.skipped.push(what());
        }
    }

    fn run(&self, job: Job) -> Result<()> {
        let dir = job.dir.fd.as_fd();
        match job.what {
            What::Whiteout => match overlay::make_whiteout(dir, &job.name) {
                // What the archive itself puts there stays: whiteouts are about lower layers.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                done => done.map_err(Error::io("remove", &job.name)),
            },
            What::Entry(entry, content) => match entry.kind {
                EntryKind::File => {
                    let file = self.create(dir, &job.name, &entry)?;
                    for bytes in &content {
                        write_all(file.as_fd(), bytes).map_err(Error::io("write", &entry.path))?;
                    }
                    self.finish_file(dir, &job.name, file, &entry)
                }
                _ => self.make_special(dir, &job.name, &entry),
            },
        }
    }

    /// Opens a new file for an entry's content; what was there goes.
    pub(super) fn create(&self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        replacing(dir, name, || rustix::fs::openat(dir, name, flags, mode))
            .map_err(Error::io("create", &entry.path))
    }

    /// Sets everything but the content of a file made by [`Self::create`].
    pub(super) fn finish_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        file: OwnedFd,
        entry: &Entry,
    ) -> Result<()> {
        if (entry.uid, entry.gid) != (self.process.uid, self.process.gid) {
            let owned =
                rustix::fs::fchown(&file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            self.owner_result(owned, dir, name, entry)?;
        }
        // Mode bits that the umask or the system takes away, or that changing the owner has cleared.
        if entry.mode & (self.process.umask | 0o7000) != 0 {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode))
                .map_err(Error::io("set mode of", &entry.path))?;
        }
        for (key, value) in &entry.xattrs {
            let set = rustix::fs::fsetxattr(&file, key.as_os_str(), value, XattrFlags::empty());
            self.xattr_result(set, key, entry)?;
        }
        rustix::fs::futimens(&file, &times(entry.mtime_s, entry.mtime_ns))
            .map_err(Error::io("set time of", &entry.path))?;
        let stored =
            entry.sparse.as_ref().map_or(entry.size, |pieces| pieces.iter().map(|piece| piece.len).sum());
        self.count(stored);
        Ok(())
    }

    fn make_special(&self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<()> {
        let node = |kind, device| {
            let mode = Mode::from_raw_mode(entry.mode & 0o777);
            replacing(dir, name, || rustix::fs::mknodat(dir, name, kind, mode, device))
        };
        let device = rustix::fs::makedev(entry.major, entry.minor);
        let made = match entry.kind {
            EntryKind::Symlink => replacing(dir, name, || rustix::fs::symlinkat(&entry.link, dir, name)),
            EntryKind::Fifo => node(FileType::Fifo, 0),
            EntryKind::CharDevice if device == 0 => {
                return Err(Error::entry(&entry.path, "device 0/0 is overlayfs' own mark"));
            }
            EntryKind::CharDevice => node(FileType::CharacterDevice, device),
            EntryKind::BlockDevice => node(FileType::BlockDevice, device),
            EntryKind::File | EntryKind::Dir | EntryKind::HardLink => unreachable!("made elsewhere"),
        };
        match made {
            // In a user namespace nobody makes devices.
            Err(Errno::PERM) if matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice) => {
                self.skip(|| format!("device `{}`", entry.path.display()));
                return Ok(());
            }
            made => made.map_err(Error::io("create", &entry.path))?,
        }
        self.count(0);
        self.attributes(dir, name, entry)
    }

    /// Sets owner, mode, attributes and time of something by its name.
    pub(super) fn attributes(&self, dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<()> {
        if (entry.uid, entry.gid) != (self.process.uid, self.process.gid)
            || matches!(entry.kind, EntryKind::Dir | EntryKind::HardLink)
        {
            let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
            let owned = rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW);
            self.owner_result(owned, dir, name, entry)?;
        }
        if entry.kind != EntryKind::Symlink {
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(Error::io("set mode of", &entry.path))?;
        }
        if !entry.xattrs.is_empty() {
            let path = overlay::proc_path(dir, name);
            for (key, value) in &entry.xattrs {
                let set = rustix::fs::lsetxattr(&path, key.as_os_str(), value, XattrFlags::empty());
                self.xattr_result(set, key, entry)?;
            }
        }
        let times = times(entry.mtime_s, entry.mtime_ns);
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::io("set time of", &entry.path))
    }

    fn owner_result(
        &self,
        owned: Result<(), Errno>,
        dir: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
    ) -> Result<()> {
        match owned {
            Err(Errno::INVAL | Errno::PERM) if self.format.owner_xattr => {
                if matches!(entry.kind, EntryKind::File | EntryKind::Dir) {
                    let value = format!("{}:{}", entry.uid, entry.gid);
                    let path = overlay::proc_path(dir, name);
                    rustix::fs::lsetxattr(&path, overlay::OWNER_XATTR, value.as_bytes(), XattrFlags::empty())
                        .map_err(Error::io("keep owner of", &entry.path))?;
                }
                Ok(())
            }
            owned => owned.map_err(Error::io("set owner of", &entry.path)),
        }
    }

    fn xattr_result(&self, set: Result<(), Errno>, key: &OsStr, entry: &Entry) -> Result<()> {
        match set {
            // Attributes of a kind that this file system or user has not are left out, as upstream does. Only regular
            // files and directories can have `user.` ones.
            Err(Errno::OPNOTSUPP) => {}
            Err(Errno::PERM)
                if self.format.owner_xattr
                    || !matches!(entry.kind, EntryKind::File | EntryKind::Dir | EntryKind::HardLink) => {}
            set => return set.map_err(Error::io("set attributes of", &entry.path)),
        }
        self.skip(|| format!("attribute `{}` of `{}`", key.display(), entry.path.display()));
        Ok(())
    }
}

/// Makes something; if the name is taken by a file (a directory is never in the way here), once more without it.
fn replacing<T>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            make()
        }
        made => made,
    }
}

pub(crate) fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(len) => bytes = &bytes[len..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn times(mtime_s: i64, mtime_ns: u32) -> Timestamps {
    let time = Timespec { tv_sec: mtime_s, tv_nsec: mtime_ns.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// The writers, or nobody.
pub(super) struct Team<'a> {
    maker: &'a Maker,
    queues: Vec<SyncSender<Message>>,
    failed: Arc<Mutex<Option<Error>>>,
}

pub(super) enum Message {
    Job(Job),
    /// To be dropped when everything before it is done.
    Barrier(#[allow(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

/// One writer's work.
pub(super) struct Writer<'a> {
    maker: &'a Maker,
    queue: Receiver<Message>,
    failed: Arc<Mutex<Option<Error>>>,
}

impl<'a> Team<'a> {
    /// A team of so many writers; each is to be run by a thread.
    pub(super) fn new(maker: &'a Maker, writers: usize) -> (Self, Vec<Writer<'a>>) {
        let failed = Arc::new(Mutex::new(None));
        let (mut queues, mut work) = (Vec::new(), Vec::new());
        for _ in 0..writers {
            let (sender, queue) = sync_channel(JOBS_WAITING);
            queues.push(sender);
            work.push(Writer { maker, queue, failed: Arc::clone(&failed) });
        }
        (Self { maker, queues, failed }, work)
    }

    /// Has a file made, now or soon. An error may be that of an earlier file.
    pub(super) fn submit(&self, job: Job) -> Result<()> {
        if self.queues.is_empty() {
            return self.maker.run(job);
        }
        let queue = &self.queues[(job.dir.id % self.queues.len() as u64) as usize];
        match queue.send(Message::Job(job)) {
            Ok(()) => Ok(()),
            // A writer ends early only when it has failed.
            Err(_) => self.check(),
        }
    }

    /// Waits until everything submitted is done.
    pub(super) fn barrier(&self) -> Result<()> {
        let waits: Vec<_> = self
            .queues
            .iter()
            .filter_map(|queue| {
                let (done, wait) = sync_channel(0);
                queue.send(Message::Barrier(done)).ok()?;
                Some(wait)
            })
            .collect();
        for wait in waits {
            // Answered by being dropped.
            let _ = wait.recv();
        }
        self.check()
    }

    fn check(&self) -> Result<()> {
        match self.failed.lock().unwrap_or_else(|poison| poison.into_inner()).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Writer<'_> {
    pub(super) fn run(self) {
        while let Ok(message) = self.queue.recv() {
            let Message::Job(job) = message else { continue };
            if let Err(error) = self.maker.run(job) {
                let mut failed = self.failed.lock().unwrap_or_else(|poison| poison.into_inner());
                failed.get_or_insert(error);
                return;
            }
        }
    }
}
