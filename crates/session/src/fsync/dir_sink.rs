//! A sink that writes beneath a directory handle and knows what was there before.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::Hasher;
use rustix::fs::FileType;
use tokio::sync::mpsc;

use super::beneath::Beneath;
use super::error::SyncError;
use super::metadata_only::{METADATA_FILE, MetadataOnly};
use super::mode::{FileKind, GoMode};
use super::receive::{ContentWriter, FsSink, SinkError, Want, Wanted};
use super::spread::Spread;
use super::stat::FileStat;
use super::tree::{ContentDigest, Place, Tree, TreeEntry, TreeReader, TreeWriter};
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
    /// What [`Tree::encoded`] gave after the transfer before this one, for [`Existing::Tracked`]; empty: nothing was there. If it
    /// cannot be read, nobody knows what is there, and [`Existing::Mirror`] holds.
    pub previous: Vec<u8>,
    /// What counts as the same.
    pub differ: Differ,
    /// What happens to other files.
    pub existing: Existing,
    /// Who owns what is made.
    pub owner: OwnerPolicy,
    /// Directories that are made at the top begin in parts of the disk of their own.
    pub spread: bool,
    /// Nobody asks the tree what the files' contents are.
    pub without_digests: bool,
    /// Files are listed in [`METADATA_FILE`] and not made, but for those that match.
    pub metadata_only: Option<PatternMatcher>,
}

/// Writes received files beneath a directory. Hard links that others have to its files are never written through.
pub struct DirSink {
    shared: Arc<Shared>,
    beneath: Beneath,
    metadata_only: Option<MetadataOnly>,
    /// Directories whose times are to be set at the end.
    dirs: Vec<Place>,
    /// Hard links, to be made when their files are complete.
    links: Vec<Place>,
    differ: Differ,
    existing: Existing,
    /// Holds as long as the transfer.
    _spread: Option<Spread>,
    alive: Alive,
    /// User and group of this process.
    own: (u32, u32),
}

/// What became of a [`DirSink`]; see [`DirHandle::into_tree`].
pub struct DirHandle {
    shared: Arc<Shared>,
    /// Ends when the sink and its writers are gone.
    gone: mpsc::Receiver<()>,
}

/// What the sink and its writers share.
pub(super) struct Shared {
    owner: OwnerPolicy,
    without_digests: bool,
    state: Mutex<State>,
}

struct State {
    /// What was there before and was not spoken of yet.
    previous: TreeReader,
    current: TreeWriter,
}

impl Shared {
    pub(super) fn chown(&self) -> bool {
        self.owner == OwnerPolicy::AsSent
    }

    /// What takes the digest of a file.
    pub(super) fn hasher(&self) -> Option<Hasher> {
        (!self.without_digests).then(Hasher::sha256)
    }

    /// A file is there as was said.
    pub(super) fn completed(&self, place: Place, digest: Option<ContentDigest>) {
        self.with(|state| state.current.complete(place, digest));
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
        let (previous, existing) = match TreeReader::new(options.previous) {
            Ok(previous) => (previous, options.existing),
            Err(_) => (TreeReader::default(), Existing::Mirror),
        };
        let state = State { previous, current: TreeWriter::default() };
        let (owner, without_digests) = (options.owner, options.without_digests);
        let shared = Arc::new(Shared { owner, without_digests, state: Mutex::new(state) });
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
            existing,
            alive: Alive { _sender: sender },
            own: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        };
        (sink, DirHandle { shared, gone })
    }
}

impl DirHandle {
    /// Waits until the transfer has ended, well or not, and says what is there now. Also after a failed one that is true: what was
    /// under way is in it as incomplete.
    pub async fn into_tree(mut self) -> Tree {
        while self.gone.recv().await.is_some() {}
        self.shared
            .with(|state| std::mem::take(&mut state.current).finish_with(std::mem::take(&mut state.previous)))
    }
}

impl FsSink for DirSink {
    fn entry(&mut self, stat: FileStat) -> Result<Want, SinkError> {
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

    fn open(&mut self, wanted: Wanted) -> Result<Box<dyn ContentWriter>, SinkError> {
        let place = (wanted.0 >> 1) as Place;
        let stat = self.shared.with(|state| state.current.at(place)).stat;
        let writer = self.writer(place, stat, wanted.0 & 1 == 1);
        Ok(Box::new(Tracked { writer, _alive: self.alive.clone() }))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.make_links()?;
        self.remove_others()?;
        // Innermost first: a change in a directory changes its time.
        for place in std::mem::take(&mut self.dirs).into_iter().rev() {
            let dir = self.shared.with(|state| state.current.at(place));
            self.beneath.finish_dir(&dir.stat)?;
        }
        // Last, as it moves what was noted before.
        self.write_list()
    }
}

impl DirSink {
    /// What was at `path` before.
    fn previous(&mut self, path: &str) -> Option<TreeEntry> {
        match self.shared.with(|state| state.previous.take(path)) {
            Ok(previous) => previous,
            Err(_) => {
                self.forget_previous();
                None
            }
        }
    }

    /// What was noted of the transfer before cannot be read: nobody knows what is there.
    fn forget_previous(&mut self) {
        self.shared.with(|state| state.previous = TreeReader::default());
        self.existing = Existing::Mirror;
    }

    /// Makes what `stat` says unless it is there.
    fn make(&mut self, mut stat: FileStat) -> Result<Want, SyncError> {
        if self.shared.owner == OwnerPolicy::Own {
            (stat.uid, stat.gid) = self.own;
        }
        let previous = self.previous(&stat.path);
        // Until it is complete, nobody may take the file for what it was or what it shall be.
        let (place, stat) = self.shared.with(|state| state.current.push(stat));
        if stat.is_dir() {
            return self.make_dir(place, &stat, previous).map(|()| Want::Nothing);
        }
        let there = previous.is_some();
        if let Some(previous) = previous {
            let unchanged = self.differ == Differ::Metadata
                && previous.complete
                && stat.same_metadata(&previous.stat)
                && !(stat.is_hard_link() && self.is_changed(&stat.linkname));
            if unchanged {
                self.shared.with(|state| state.current.keep(place, &previous));
                return Ok(Want::Nothing);
            }
            if previous.stat.is_dir() {
                self.beneath.remove_all(&stat.path)?;
            }
        }
        if stat.is_hard_link() && stat.kind() == FileKind::Regular {
            self.links.push(place);
            return Ok(Want::Nothing);
        }
        if stat.kind() == FileKind::Regular {
            if stat.size == 0 {
                // Nothing to ask for.
                self.writer(place, stat, there).finish()?;
                return Ok(Want::Nothing);
            }
            return Ok(Want::Content(Wanted((place as u64) << 1 | u64::from(there))));
        }
        self.make_special(place, &stat).map(|()| Want::Nothing)
    }

    fn writer(&self, place: Place, stat: FileStat, there: bool) -> Box<FileWriter> {
        Box::new(FileWriter::new(self.shared.clone(), self.beneath.clone(), place, stat, there))
    }

    /// Whether a file that was sent before is not the one that was there.
    fn is_changed(&self, path: &str) -> bool {
        let sent = self.shared.with(|state| state.current.get(path));
        sent.is_none_or(|entry| !entry.complete || entry.fresh)
    }

    fn make_dir(
        &mut self,
        place: Place,
        stat: &FileStat,
        previous: Option<TreeEntry>,
    ) -> Result<(), SyncError> {
        self.dirs.push(place);
        let was_dir = previous.as_ref().is_some_and(|entry| entry.stat.is_dir());
        if let Some(previous) = previous {
            if was_dir && previous.complete && stat.same_metadata(&previous.stat) {
                self.beneath.open_up(stat)?;
                self.shared.with(|state| state.current.keep(place, &previous));
                return Ok(());
            }
            if !was_dir {
                self.beneath.remove_all(&stat.path)?;
            }
        }
        if !was_dir {
            match self.beneath.mkdir(&stat.path) {
                Err(SyncError::File { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                    self.take_place_of_dir(&stat.path)?;
                }
                result => result?,
            }
        }
        let chown = self.shared.chown();
        self.beneath.set_dir_metadata(stat, chown)?;
        self.shared.completed(place, None);
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

    fn make_special(&mut self, place: Place, stat: &FileStat) -> Result<(), SyncError> {
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
        beneath.set_special_metadata(stat, self.shared.owner == OwnerPolicy::AsSent)?;
        self.shared.completed(place, None);
        Ok(())
    }

    fn make_links(&mut self) -> Result<(), SyncError> {
        for place in std::mem::take(&mut self.links) {
            let stat = self.shared.with(|state| state.current.at(place)).stat;
            self.beneath.remove_all(&stat.path)?;
            self.beneath.link(&stat.linkname, &stat.path)?;
            self.shared.completed(place, None);
        }
        Ok(())
    }

    /// Removes what is there and was not sent.
    fn remove_others(&mut self) -> Result<(), SyncError> {
        match self.existing {
            Existing::Merge => Ok(()),
            Existing::Mirror => self.remove_unknown(""),
            Existing::Tracked => {
                // What is in a directory comes after it.
                loop {
                    match self.shared.with(|state| state.previous.take_other()) {
                        Ok(Some(entry)) => self.beneath.remove_all(&entry.stat.path)?,
                        Ok(None) => return Ok(()),
                        Err(_) => break,
                    }
                }
                self.forget_previous();
                self.remove_unknown("")
            }
        }
    }

    /// Removes what is below `top` and not in the current tree.
    fn remove_unknown(&mut self, top: &str) -> Result<(), SyncError> {
        let mut dirs = vec![top.to_string()];
        while let Some(dir) = dirs.pop() {
            for name in self.beneath.names(&dir)? {
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                match self.shared.with(|state| state.current.get(&path)) {
                    Some(entry) if entry.stat.is_dir() => dirs.push(path),
                    Some(_) => {}
                    None => self.beneath.remove_all(&path)?,
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
        let place = self.shared.with(|state| {
            state.current.insert(stat.clone());
            state.current.place(METADATA_FILE).expect("was put in")
        });
        let mut writer = self.writer(place, stat, true);
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
