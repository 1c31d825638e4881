//! A sink that writes beneath a directory handle and knows what was there before.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::Digest;
use rustix::fs::FileType;
use tokio::sync::mpsc;

use super::beneath::Beneath;
use super::error::SyncError;
use super::metadata_only::{METADATA_FILE, MetadataOnly};
use super::mode::{FileKind, GoMode};
use super::receive::{ContentWriter, FsSink, SinkError, Want};
use super::spread::Spread;
use super::stat::FileStat;
use super::tree::{Tree, TreeEntry};
use super::writer::FileWriter;
use crate::patterns::PatternMatcher;

/// When a file that was there before is taken to be the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Differ {
    /// Kind, permissions, owner, size, time and link are the same.
    #[default]
    Metadata,
    /// Never.
    None,
}

/// What is done with files that are there and that no tree speaks of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Existing {
    /// The directory is the receiver's own: what the previous tree has and the sender has not is removed, anything else in the way too.
    #[default]
    Tracked,
    /// The directory is a person's: files of the same path are replaced, directories kept, nothing is removed.
    Merge,
    /// The directory becomes what was sent: everything else is removed.
    Mirror,
}

/// What a transfer before this one left.
#[derive(Debug, Clone)]
pub enum Previous {
    /// This.
    Tree(Tree),
    /// What [`Tree::encode`] gave. It is read while the first files come; if it cannot be read, nobody knows what is there, and
    /// [`Existing::Mirror`] holds.
    Encoded(Vec<u8>),
}

impl Default for Previous {
    fn default() -> Self {
        Self::Tree(Tree::new())
    }
}

/// Who owns what is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// Whom the sender says.
    #[default]
    AsSent,
    /// The user of this process.
    Own,
}

/// How a [`DirSink`] works.
#[derive(Debug, Clone, Default)]
pub struct DirSinkOptions {
    /// What a transfer before this one left, for [`Existing::Tracked`].
    pub previous: Previous,
    /// What counts as the same.
    pub differ: Differ,
    /// What happens to other files.
    pub existing: Existing,
    /// Who owns what is made.
    pub owner: OwnerPolicy,
    /// Directories that are made at the top begin in parts of the disk of their own.
    pub spread: bool,
    /// Files are listed in [`METADATA_FILE`] and not made, but for those that match.
    pub metadata_only: Option<PatternMatcher>,
}

/// Writes received files beneath a directory. Hard links that others have to its files are never written through.
pub struct DirSink {
    shared: Arc<Shared>,
    beneath: Beneath,
    metadata_only: Option<MetadataOnly>,
    /// Directories whose times are to be set at the end.
    dirs: Vec<FileStat>,
    /// Hard links, to be made when their files are complete.
    links: Vec<FileStat>,
    differ: Differ,
    existing: Existing,
    /// Holds as long as the transfer.
    _spread: Option<Spread>,
    alive: Alive,
    /// User and group of this process.
    own: (u32, u32),
}

/// What became of a [`DirSink`]; see [`DirHandle::into_outcome`].
pub struct DirHandle {
    shared: Arc<Shared>,
    /// Ends when the sink and its writers are gone.
    gone: mpsc::Receiver<()>,
}

/// What a transfer did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What the directory holds now.
    pub tree: Tree,
    /// What is not as before, in no particular order. After a failed transfer the list may lack what was under way.
    pub changes: Vec<Change>,
}

/// A path that is not as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is something else than before.
    Modified,
    /// It is gone.
    Removed,
}

/// What the sink and its writers share.
pub(super) struct Shared {
    owner: OwnerPolicy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was there before and was not read yet.
    encoded: Option<Vec<u8>>,
    /// What was there before and was not spoken of yet.
    previous: Tree,
    current: Tree,
    changes: Vec<Change>,
    /// Paths that were there before, of those under way.
    replaced: HashSet<String>,
    /// Regular files that were made by this transfer: links to them are made again.
    fresh: HashSet<String>,
}

impl Shared {
    pub(super) fn chown(&self) -> bool {
        self.owner == OwnerPolicy::AsSent
    }

    /// A file is there as `stat` says.
    pub(super) fn completed(&self, stat: FileStat, digest: Option<Digest>) {
        self.with(|state| {
            let kind =
                if state.replaced.remove(&stat.path) { ChangeKind::Modified } else { ChangeKind::Added };
            state.changes.push(Change { path: stat.path.clone(), kind });
            if digest.is_some() {
                state.fresh.insert(stat.path.clone());
            }
            state.current.insert(TreeEntry { stat, digest, complete: true });
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keeps [`DirHandle`] waiting.
#[derive(Clone)]
struct Alive {
    _sender: mpsc::Sender<()>,
}

impl DirSink {
    /// A sink into `root`. Drop a stored tree of this directory before the transfer and store the outcome's after it: if the machine
    /// dies between the two, nobody knows what is there.
    pub fn new(root: OwnedFd, options: DirSinkOptions) -> (Self, DirHandle) {
        let state = match options.previous {
            Previous::Tree(previous) => State { previous, ..Default::default() },
            Previous::Encoded(encoded) => State { encoded: Some(encoded), ..Default::default() },
        };
        let shared = Arc::new(Shared { owner: options.owner, state: Mutex::new(state) });
        let (sender, gone) = mpsc::channel(1);
        let spread = if options.spread { root.try_clone().ok().and_then(Spread::new) } else { None };
        let sink = Self {
            shared: shared.clone(),
            beneath: Beneath::new(Arc::new(root)),
            _spread: spread,
            metadata_only: options.metadata_only.map(MetadataOnly::new),
            dirs: Vec::new(),
            links: Vec::new(),
            differ: options.differ,
            existing: options.existing,
            alive: Alive { _sender: sender },
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        (sink, DirHandle { shared, gone })
    }
}

impl DirHandle {
    /// Waits until the transfer has ended, well or not, and says what it did. Also after a failed one the tree is true: what was under
    /// way is in it as incomplete.
    pub async fn into_outcome(mut self) -> Outcome {
        while self.gone.recv().await.is_some() {}
        self.shared.with(|state| {
            // Nothing came, so nothing was done to it.
            if let Some(Ok(previous)) = state.encoded.take().map(|encoded| Tree::decode(&encoded)) {
                state.previous = previous;
            }
            let mut tree = std::mem::take(&mut state.current);
            for entry in std::mem::take(&mut state.previous).into_entries() {
                tree.insert(entry);
            }
            Outcome { tree, changes: std::mem::take(&mut state.changes) }
        })
    }
}

impl FsSink for DirSink {
    fn entry(&mut self, stat: FileStat) -> Result<Want, SinkError> {
        self.read_previous();
        let Some(metadata_only) = &mut self.metadata_only else { return self.make(stat) };
        let wanted =
            metadata_only.take(stat).map_err(|_| SyncError::protocol("metadata list is too long"))?;
        let mut want = Want::Nothing;
        for stat in wanted {
            // All but the last are directories.
            want = self.make(stat)?;
        }
        Ok(want)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.read_previous();
        self.make_links()?;
        self.remove_others()?;
        self.write_list()?;
        // Innermost first: a change in a directory changes its time.
        for stat in std::mem::take(&mut self.dirs).iter().rev() {
            self.beneath.finish_dir(stat)?;
        }
        Ok(())
    }
}

impl DirSink {
    fn read_previous(&mut self) {
        let Some(encoded) = self.shared.with(|state| state.encoded.take()) else { return };
        match Tree::decode(&encoded) {
            Ok(previous) => self.shared.with(|state| state.previous = previous),
            Err(_) => self.existing = Existing::Mirror,
        }
    }

    /// Makes what `stat` says unless it is there.
    fn make(&mut self, mut stat: FileStat) -> Result<Want, SyncError> {
        if self.shared.owner == OwnerPolicy::Own {
            (stat.uid, stat.gid) = self.own;
        }
        let previous = self.shared.with(|state| state.previous.remove(&stat.path));
        if stat.is_dir() {
            return self.make_dir(stat, previous).map(|()| Want::Nothing);
        }
        let unchanged = self.differ == Differ::Metadata
            && previous.as_ref().is_some_and(|entry| entry.complete && stat.same_metadata(&entry.stat))
            && !(stat.is_hard_link() && self.is_changed(&stat.linkname));
        if let Some(previous) = previous {
            if unchanged {
                self.shared.with(|state| state.current.insert(previous));
                return Ok(Want::Nothing);
            }
            if previous.stat.is_dir() {
                self.beneath.remove_all(&stat.path)?;
            }
            self.shared.with(|state| state.replaced.insert(stat.path.clone()));
        }
        self.begin(&stat);
        let there = self.shared.with(|state| state.replaced.contains(&stat.path));
        if stat.is_hard_link() && stat.kind() == FileKind::Regular {
            self.links.push(stat);
            return Ok(Want::Nothing);
        }
        if stat.kind() == FileKind::Regular {
            let (shared, beneath) = (self.shared.clone(), self.beneath.clone());
            let empty = stat.size == 0;
            let writer = Box::new(FileWriter::new(shared, beneath, stat, there));
            if empty {
                // Nothing to ask for.
                writer.finish()?;
                return Ok(Want::Nothing);
            }
            return Ok(Want::Content(Box::new(Tracked { writer, _alive: self.alive.clone() })));
        }
        self.make_special(stat).map(|()| Want::Nothing)
    }

    /// From here until it is complete, nobody may take the file for what it was or what it shall be.
    fn begin(&mut self, stat: &FileStat) {
        let entry = TreeEntry { stat: stat.clone(), digest: None, complete: false };
        self.shared.with(|state| state.current.insert(entry));
    }

    /// Whether a file that was sent before is not the one that was there.
    fn is_changed(&self, path: &str) -> bool {
        self.shared.with(|state| {
            let pending = state.current.get(path).is_none_or(|entry| !entry.complete);
            pending || state.fresh.contains(path)
        })
    }

    fn make_dir(&mut self, stat: FileStat, previous: Option<TreeEntry>) -> Result<(), SyncError> {
        let (was_dir, same) = match &previous {
            Some(entry) if entry.stat.is_dir() => (true, entry.complete && stat.same_metadata(&entry.stat)),
            _ => (false, false),
        };
        self.dirs.push(stat.clone());
        if same {
            self.beneath.open_up(&stat)?;
            self.shared.with(|state| state.current.insert(TreeEntry { stat, digest: None, complete: true }));
            return Ok(());
        }
        if previous.is_some() {
            self.shared.with(|state| state.replaced.insert(stat.path.clone()));
        }
        self.begin(&stat);
        if !was_dir {
            if previous.is_some() {
                self.beneath.remove_all(&stat.path)?;
            }
            match self.beneath.mkdir(&stat.path) {
                Err(SyncError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    self.take_place_of_dir(&stat.path)?;
                }
                result => result?,
            }
        }
        let chown = self.shared.chown();
        self.beneath.set_dir_metadata(&stat, chown)?;
        self.shared.completed(stat, None);
        Ok(())
    }

    /// Something is where a directory shall be.
    fn take_place_of_dir(&mut self, path: &str) -> Result<(), SyncError> {
        let is_dir = self.beneath.kind(path)? == Some(FileType::Directory);
        if !is_dir || self.existing == Existing::Tracked {
            self.beneath.remove_all(path)?;
            self.beneath.mkdir(path)?;
        }
        Ok(())
    }

    fn make_special(&mut self, stat: FileStat) -> Result<(), SyncError> {
        self.beneath.remove_all(&stat.path)?;
        let beneath = &mut self.beneath;
        match stat.kind() {
            FileKind::Symlink => beneath.symlink(&stat.linkname, &stat.path)?,
            FileKind::Fifo => beneath.mknod(&stat.path, FileType::Fifo, (0, 0))?,
            FileKind::BlockDevice => beneath.mknod(&stat.path, FileType::BlockDevice, stat.device)?,
            FileKind::CharDevice if stat.device == (0, 0) => {
                // In a layer this would mean that a file is gone.
                return Err(SyncError::protocol(format!("invalid device of {:?}", stat.path)));
            }
            FileKind::CharDevice => beneath.mknod(&stat.path, FileType::CharacterDevice, stat.device)?,
            FileKind::Regular | FileKind::Directory | FileKind::Other => {
                return Err(SyncError::protocol(format!("invalid mode of {:?}", stat.path)));
            }
        }
        beneath.set_special_metadata(&stat, self.shared.owner == OwnerPolicy::AsSent)?;
        self.shared.completed(stat, None);
        Ok(())
    }

    fn make_links(&mut self) -> Result<(), SyncError> {
        for stat in std::mem::take(&mut self.links) {
            self.beneath.remove_all(&stat.path)?;
            self.beneath.link(&stat.linkname, &stat.path)?;
            self.shared.completed(stat, None);
        }
        Ok(())
    }

    /// Removes what is there and was not sent.
    fn remove_others(&mut self) -> Result<(), SyncError> {
        match self.existing {
            Existing::Merge => Ok(()),
            Existing::Mirror => self.remove_unknown(""),
            Existing::Tracked => {
                let others = self.shared.with(|state| state.previous.clone());
                for entry in others.iter().rev() {
                    let path = &entry.stat.path;
                    self.beneath.remove_all(path)?;
                    self.shared.with(|state| {
                        state.previous.remove(path);
                        state.changes.push(Change { path: path.clone(), kind: ChangeKind::Removed });
                    });
                }
                Ok(())
            }
        }
    }

    /// Removes what is below `top` and not in the current tree.
    fn remove_unknown(&mut self, top: &str) -> Result<(), SyncError> {
        let mut dirs = vec![top.to_string()];
        while let Some(dir) = dirs.pop() {
            for name in self.beneath.names(&dir)? {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                let known =
                    self.shared.with(|state| state.current.get(&path).map(|entry| entry.stat.is_dir()));
                match known {
                    Some(true) => dirs.push(path),
                    Some(false) => {}
                    None => {
                        self.beneath.remove_all(&path)?;
                        self.shared.with(|state| {
                            state.changes.push(Change { path, kind: ChangeKind::Removed });
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes [`METADATA_FILE`].
    fn write_list(&mut self) -> Result<(), SyncError> {
        let Some(metadata_only) = &mut self.metadata_only else { return Ok(()) };
        let list = metadata_only.finish();
        let stat = FileStat {
            path: METADATA_FILE.into(),
            mode: GoMode::new(FileKind::Regular, 0o600),
            size: list.len() as i64,
            uid: self.own.0,
            gid: self.own.1,
            ..Default::default()
        };
        let (shared, beneath) = (self.shared.clone(), self.beneath.clone());
        let mut writer = Box::new(FileWriter::new(shared, beneath, stat, true));
        writer.write(&list)?;
        writer.finish()
    }
}

/// A writer that [`DirHandle`] waits for.
struct Tracked {
    writer: Box<FileWriter>,
    _alive: Alive,
}

impl ContentWriter for Tracked {
    fn write(&mut self, data: &[u8]) -> Result<(), SinkError> {
        self.writer.write(data)
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        let Self { writer, _alive } = *self;
        writer.finish()
    }
}
