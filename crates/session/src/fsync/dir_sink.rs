//! A sink that writes beneath a directory handle and knows what was there before.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::Hasher;
use kiln_spool::{Spool, Spools};
use rustix::fs::FileType;
use tokio::sync::mpsc;

use super::beneath::Beneath;
use super::error::SyncError;
use super::lists::{Places, list_error};
use super::metadata_only::{METADATA_FILE, MetadataOnly};
use super::mode::{FileKind, GoMode};
use super::order::compare_paths;
use super::receive::{ContentWriter, FsSink, SinkError, Want, Wanted};
use super::spread::Spread;
use super::stat::FileStat;
use super::tree::{ContentDigest, Place, Tree, TreeEntry, TreeError, TreeReader, TreeWriter};
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
#[derive(Debug, Clone)]
pub struct DirSinkOptions {
    /// Where lists of files go that are too long for memory.
    pub spools: Spools,
    /// What [`Tree::stored`] gave after the transfer before this one, for [`Existing::Tracked`]; none or empty: nothing was there. If it
    /// is none, nobody knows what is there, and [`Existing::Mirror`] holds.
    pub previous: Option<Arc<Spool>>,
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

impl DirSinkOptions {
    /// For a directory of which nothing is known, with a tree and digests in the end.
    pub fn new(spools: Spools) -> Self {
        Self {
            spools,
            previous: None,
            differ: Differ::default(),
            existing: Existing::default(),
            owner: OwnerPolicy::default(),
            spread: false,
            without_digests: false,
            metadata_only: None,
        }
    }
}

/// Writes received files beneath a directory. Hard links that others have to its files are never written through.
pub struct DirSink {
    shared: Arc<Shared>,
    beneath: Beneath,
    metadata_only: Option<MetadataOnly>,
    /// Directories whose times are to be set at the end.
    dirs: Places,
    /// Hard links, to be made when their files are complete.
    links: Places,
    differ: Differ,
    existing: Existing,
    /// Taken back before the sender hears that all is there, or with the sink.
    spread: Option<Spread>,
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
    spools: Spools,
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
    pub(super) fn completed(&self, place: Place, digest: Option<ContentDigest>) -> Result<(), SyncError> {
        self.list(|state| state.current.complete(place, digest))
    }

    /// What is done with the lists. It fails where they are too long for memory and there is no room for them on the disk.
    fn list<T>(&self, f: impl FnOnce(&mut State) -> Result<T, TreeError>) -> Result<T, SyncError> {
        self.with(f).map_err(|error| list_error(&self.spools, error.into()))
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
        let spools = options.spools;
        let (previous, existing) = match options.previous.map(TreeReader::new) {
            Some(Ok(previous)) => (previous, options.existing),
            Some(Err(_)) => (TreeReader::empty(&spools), Existing::Mirror),
            None => (TreeReader::empty(&spools), options.existing),
        };
        let (owner, without_digests) = (options.owner, options.without_digests);
        let state = State { previous, current: TreeWriter::new(&spools, !without_digests) };
        let metadata_only = options.metadata_only.map(|except| MetadataOnly::new(except, &spools));
        let (dirs, links) = (Places::new(&spools), Places::new(&spools));
        let shared = Arc::new(Shared { owner, without_digests, spools, state: Mutex::new(state) });
        let (sender, gone) = mpsc::channel(1);
        let spread = if options.spread { root.try_clone().ok().and_then(Spread::new) } else { None };
        let sink = Self {
            shared: shared.clone(),
            beneath: Beneath::new(Arc::new(root)),
            spread,
            metadata_only,
            dirs,
            links,
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
    ///
    /// # Errors
    /// Nobody knows what is there: a list cannot be read or written.
    pub async fn into_tree(mut self) -> Result<Tree, SyncError> {
        while self.gone.recv().await.is_some() {}
        let shared = self.shared;
        let finish = move || {
            let spools = &shared.spools;
            shared.list(|state| {
                let current = std::mem::replace(&mut state.current, TreeWriter::new(spools, false));
                let previous = std::mem::replace(&mut state.previous, TreeReader::empty(spools));
                current.finish_with(previous)
            })
        };
        // After a transfer that was broken off there is much to write.
        let finished = tokio::task::spawn_blocking(finish).await;
        finished.unwrap_or_else(|_| Err(SyncError::protocol("receiving thread panicked")))
    }
}

impl FsSink for DirSink {
    fn spools(&self) -> Spools {
        self.shared.spools.clone()
    }

    fn entry(&mut self, stat: FileStat) -> Result<Want, SinkError> {
        let Some(metadata_only) = &mut self.metadata_only else {
            let target = self.sent_target(&stat)?;
            check_link(&stat, target.as_ref())?;
            return self.make(stat, target);
        };
        if stat.is_hard_link() {
            let target = metadata_only.get(&stat.linkname);
            let target = target.map_err(|error| list_error(&self.shared.spools, error.into()))?;
            check_link(&stat, target.as_ref())?;
        }
        let wanted = metadata_only.take(stat)?;
        let mut want = Want::Nothing;
        for stat in wanted {
            // All but the last are directories.
            let target = self.sent_target(&stat)?;
            want = self.make(stat, target)?;
        }
        Ok(want)
    }

    fn open(&mut self, wanted: Wanted) -> Result<Box<dyn ContentWriter>, SinkError> {
        let place: Place = wanted.0 >> 1;
        let stat = self.shared.list(|state| state.current.at(place))?.stat;
        let writer = self.writer(place, stat, wanted.0 & 1 == 1);
        Ok(Box::new(Tracked { writer, _alive: self.alive.clone() }))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.make_links()?;
        self.remove_others()?;
        // Innermost first: a change in a directory changes its time.
        while let Some(place) = self.dirs.pop().map_err(|error| self.list_error(error))? {
            let dir = self.shared.list(|state| state.current.at(place))?;
            self.beneath.finish_dir(&dir.stat)?;
        }
        // After all else, as it moves what was noted before.
        self.write_list()?;
        self.spread = None;
        Ok(())
    }
}

impl DirSink {
    fn list_error(&self, error: io::Error) -> SyncError {
        list_error(&self.shared.spools, error)
    }

    /// What was at `path` before.
    fn previous(&mut self, path: &str) -> Result<Option<TreeEntry>, SyncError> {
        match self.shared.with(|state| state.previous.take(path)) {
            Ok(previous) => Ok(previous),
            Err(TreeError::Io(error)) => Err(self.list_error(error)),
            Err(TreeError::Invalid) => {
                self.forget_previous();
                Ok(None)
            }
        }
    }

    /// What was noted of the transfer before is damaged: nobody knows what is there.
    fn forget_previous(&mut self) {
        let spools = &self.shared.spools;
        self.shared.with(|state| state.previous = TreeReader::empty(spools));
        self.existing = Existing::Mirror;
    }

    /// The file that a hard link leads to, of those that were sent before it and are made.
    fn sent_target(&self, stat: &FileStat) -> Result<Option<TreeEntry>, SyncError> {
        if !stat.is_hard_link() {
            return Ok(None);
        }
        self.shared.list(|state| state.current.get(&stat.linkname))
    }

    /// Makes what `stat` says unless it is there. `target`: what it is a hard link to.
    fn make(&mut self, mut stat: FileStat, target: Option<TreeEntry>) -> Result<Want, SyncError> {
        if self.shared.owner == OwnerPolicy::Own {
            (stat.uid, stat.gid) = self.own;
        }
        let previous = self.previous(&stat.path)?;
        // Until it is complete, nobody may take the file for what it was or what it shall be.
        let (place, stat) = self.shared.list(|state| state.current.push(stat))?;
        if stat.is_dir() {
            return self.make_dir(place, &stat, previous).map(|()| Want::Nothing);
        }
        let there = previous.is_some();
        if let Some(previous) = previous {
            let unchanged = self.differ == Differ::Metadata
                && previous.complete
                && stat.same_metadata(&previous.stat)
                && !(stat.is_hard_link() && is_changed(target.as_ref()));
            if unchanged {
                self.shared.list(|state| state.current.keep(place, &previous))?;
                return Ok(Want::Nothing);
            }
            if previous.stat.is_dir() {
                self.beneath.remove_all(&stat.path)?;
            }
        }
        if stat.is_hard_link() && stat.kind() == FileKind::Regular {
            self.links.push(place).map_err(|error| self.list_error(error))?;
            return Ok(Want::Nothing);
        }
        if stat.kind() == FileKind::Regular {
            if stat.size == 0 {
                // Nothing to ask for.
                self.writer(place, stat, there).finish()?;
                return Ok(Want::Nothing);
            }
            return Ok(Want::Content(Wanted(place << 1 | u64::from(there))));
        }
        self.make_special(place, &stat).map(|()| Want::Nothing)
    }

    fn writer(&self, place: Place, stat: FileStat, there: bool) -> Box<FileWriter> {
        Box::new(FileWriter::new(self.shared.clone(), self.beneath.clone(), place, stat, there))
    }

    fn make_dir(
        &mut self,
        place: Place,
        stat: &FileStat,
        previous: Option<TreeEntry>,
    ) -> Result<(), SyncError> {
        self.dirs.push(place).map_err(|error| self.list_error(error))?;
        let was_dir = previous.as_ref().is_some_and(|entry| entry.stat.is_dir());
        if let Some(previous) = previous {
            if was_dir && previous.complete && stat.same_metadata(&previous.stat) {
                self.beneath.open_up(stat)?;
                return self.shared.list(|state| state.current.keep(place, &previous));
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
        self.shared.completed(place, None)
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
        self.shared.completed(place, None)
    }

    fn make_links(&mut self) -> Result<(), SyncError> {
        for place in self.links.iter() {
            let place = place.map_err(|error| self.list_error(error))?;
            let stat = self.shared.list(|state| state.current.at(place))?.stat;
            self.beneath.remove_all(&stat.path)?;
            self.beneath.link(&stat.linkname, &stat.path)?;
            self.shared.completed(place, None)?;
        }
        Ok(())
    }

    /// Removes what is there and was not sent.
    fn remove_others(&mut self) -> Result<(), SyncError> {
        match self.existing {
            Existing::Merge => Ok(()),
            Existing::Mirror => self.remove_unknown(),
            Existing::Tracked => {
                // What is in a directory comes after it.
                loop {
                    match self.shared.with(|state| state.previous.take_other()) {
                        Ok(Some(entry)) => self.beneath.remove_all(&entry.stat.path)?,
                        Ok(None) => return Ok(()),
                        Err(TreeError::Io(error)) => return Err(self.list_error(error)),
                        Err(TreeError::Invalid) => break,
                    }
                }
                self.forget_previous();
                self.remove_unknown()
            }
        }
    }

    /// Removes what is not in the current tree. Goes through the directory in the order of the tree.
    fn remove_unknown(&mut self) -> Result<(), SyncError> {
        let beneath = &self.beneath;
        // Last first.
        let names = |dir: &str| {
            let mut names = beneath.names(dir)?;
            names.sort_unstable_by(|a, b| b.cmp(a));
            Ok::<_, SyncError>(names)
        };
        let mut levels = vec![(String::new(), names("")?)];
        // Nothing else is done with the lists any more: all contents came.
        self.shared.with(|state| {
            let mut entries = state.current.iter();
            let mut next = || {
                let entry = entries.next().transpose();
                entry.map_err(|error| list_error(&self.shared.spools, error.into()))
            };
            let mut known = next()?;
            while let Some((dir, names_left)) = levels.last_mut() {
                let Some(name) = names_left.pop() else {
                    levels.pop();
                    continue;
                };
                let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                while known.as_ref().is_some_and(|entry| compare_paths(&entry.stat.path, &path).is_lt()) {
                    known = next()?;
                }
                match known.as_ref().filter(|entry| entry.stat.path == path) {
                    Some(entry) if entry.stat.is_dir() => {
                        let names = names(&path)?;
                        levels.push((path, names));
                    }
                    Some(_) => {}
                    None => beneath.remove_all(&path)?,
                }
            }
            Ok(())
        })
    }

    /// Writes [`METADATA_FILE`].
    fn write_list(&mut self) -> Result<(), SyncError> {
        let Some(list) = self.metadata_only.take() else { return Ok(()) };
        let stat = FileStat {
            path: METADATA_FILE.into(),
            mode: GoMode::new(FileKind::Regular, 0o600),
            size: list.length() as i64,
            uid: self.own.0,
            gid: self.own.1,
            ..Default::default()
        };
        let place = self.shared.list(|state| {
            state.current.insert(stat.clone())?;
            state.current.place(METADATA_FILE)
        })?;
        let mut writer = self.writer(place.expect("was put in"), stat, true);
        list.write(|piece| writer.write(piece))?;
        writer.finish()
    }
}

/// Whether a file that was sent before is not the one that was there.
fn is_changed(sent: Option<&TreeEntry>) -> bool {
    sent.is_none_or(|entry| !entry.complete || entry.fresh)
}

/// Hard links go only to files that came before, and through no other link.
fn check_link(stat: &FileStat, target: Option<&TreeEntry>) -> Result<(), SyncError> {
    let is_file = |target: &FileStat| {
        !matches!(target.kind(), FileKind::Directory | FileKind::Symlink) && target.linkname.is_empty()
    };
    if !stat.is_hard_link() || target.is_some_and(|target| is_file(&target.stat)) {
        return Ok(());
    }
    let FileStat { path, linkname, .. } = stat;
    Err(SyncError::protocol(format!("invalid link {path} to unknown path: {linkname:?}")))
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
