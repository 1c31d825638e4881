//! Copies a file or a tree from a ref into the layer being written, as `cp -a` does.
//!
//! Regular files whose owner, mode and time stay as they are become hard links to the file in the layer it comes
//! from: layers never change, and overlayfs copies a file up before it is written to. Everything else is copied by
//! the kernel (`copy_file_range`, which shares blocks where the file system can). Folders are worked on by several
//! threads.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_layer::threads::Budget;
use kiln_layer::union::{Entry, Node, Union};
use kiln_layer::{FileKind, Meta};
use kiln_session::patterns::{MatchInfo, PatternMatcher};
use rustix::io::Errno;

use super::chmod::ModeChange;
use super::error::FileError;
use super::owner::Owner;
use super::place::{Place, Time, make_dirs, settle_dirs, shown};
use super::target::{Attributes, Target, TargetDir, errno_of, set_attributes, show};
use crate::crew::{self, Queue};
use crate::error::PathError;
use crate::path;
use crate::raw::{Xattr, list_xattrs, set_what_is_possible};

/// Files of one folder that are one job for a thread.
const FILES_PER_JOB: usize = 128;

/// Where files come from.
pub struct Source<'a> {
    pub union: &'a Union,
    /// For each layer of the union, lowest first, whether its files may be linked.
    pub linkable: &'a [bool],
}

/// How to copy.
#[derive(Default)]
pub struct Options {
    pub owner: Option<Owner>,
    pub mode: ModeRule,
    /// For everything that is made; `None` keeps the source's times.
    pub mtime: Option<Time>,
    /// The content of a folder instead of the folder.
    pub dir_contents: bool,
    /// Follow a link that the source path leads to.
    pub follow_links: bool,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// What is in the way goes, whatever it is.
    pub always_replace: bool,
    /// Set when nobody wants the result any more.
    pub cancel: Arc<AtomicBool>,
}

/// What becomes of a file's mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModeRule {
    #[default]
    Keep,
    Set(u32),
    Change(ModeChange),
}

impl ModeRule {
    fn apply(&self, meta: &Meta) -> u32 {
        match self {
            ModeRule::Keep => meta.mode,
            ModeRule::Set(mode) => mode & 0o7777,
            ModeRule::Change(change) => change.apply(meta.mode, meta.is_dir()),
        }
    }

    /// For folders that are made on the way.
    fn for_parents(&self) -> u32 {
        match self {
            ModeRule::Set(mode) => *mode,
            _ => 0o755,
        }
    }
}

/// Copies `from` (a path in the source, without wildcards) to `to`; `round` tells the copies into one layer apart,
/// `None` being the only one.
///
/// # Errors
/// See [`FileError`].
pub fn copy(
    target: &Target,
    source: &Source<'_>,
    from: &str,
    to: &str,
    options: &Options,
    round: Option<usize>,
    budget: &Budget,
) -> Result<(), FileError> {
    let parent_mode = options.mode.for_parents();
    let make = |path: &[OsString]| make_dirs(target, path, parent_mode, options.owner, options.mtime);
    let wanted_dir = if to.ends_with('/') || to.ends_with("/.") { to.to_owned() } else { path::dir(to) };
    let made_first = make(&target.resolve(&wanted_dir)?)?;

    let from_clean = path::rooted(from);
    let found = source.union.resolve(&from_clean, options.follow_links)?;
    let is_root = found.path.as_os_str().is_empty();
    let Some(node) = found.node else {
        if is_root {
            // The root of a ref that holds nothing.
            return settle_dirs(target, &made_first, options.mtime);
        }
        return Err(PathError::new("lstat", show(&found.path), Errno::NOENT).into());
    };
    let mut dest = target.resolve(&path::rooted(to))?;
    let there = target.stat(&dest)?;
    let is_dir = node.meta.is_dir();
    let into = match &there {
        Some(_) if is_dir => !options.dir_contents,
        Some(there) => there.is_dir(),
        None => false,
    };
    if into {
        match path::base(from) {
            "." | "/" => {}
            base => dest.push(base.into()),
        }
    }
    let parents = match dest.split_last() {
        Some((_, parents)) if !(options.dir_contents && is_dir && there.is_none()) => parents,
        _ => &dest[..],
    };
    let made_then = make(parents)?;
    let place = Place::at(target, &dest, "lstat")?;
    Copier::new(target, source, options, round)?.run(node, place, &shown(&dest), budget)?;
    settle_dirs(target, &made_then, options.mtime)?;
    settle_dirs(target, &made_first, options.mtime)
}

struct Copier<'a> {
    target: &'a Target,
    source: &'a Source<'a>,
    options: &'a Options,
    round: Option<usize>,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    /// Files with several names that were copied, not linked: where the first copy is.
    copies: Mutex<HashMap<(u64, u64), FirstCopy>>,
}

type FirstCopy = Arc<Mutex<Option<(Arc<TargetDir>, OsString)>>>;

/// A folder on its way.
struct Folder {
    node: Node,
    /// Path relative to what is copied; empty for that itself.
    components: String,
    above: Option<Arc<Folder>>,
    place: Mutex<Made>,
    name: OsString,
    /// Is wanted itself, not only for what is in it.
    wanted: bool,
    include: MatchInfo,
    exclude: MatchInfo,
    /// Jobs and folders in it that are not done.
    open: AtomicUsize,
}

enum Made {
    /// Waits for something in it to be wanted.
    NotYet(Option<Place>),
    Yes {
        dir: Arc<TargetDir>,
        created: bool,
    },
}

enum Job {
    Folder(Arc<Folder>),
    Files(Arc<Folder>, Vec<Entry>),
}

impl<'a> Copier<'a> {
    fn new(
        target: &'a Target,
        source: &'a Source<'a>,
        options: &'a Options,
        round: Option<usize>,
    ) -> Result<Self, FileError> {
        let matcher = |list, patterns: &[String]| {
            if patterns.is_empty() {
                return Ok(None);
            }
            let invalid = |source| FileError::Patterns { list, patterns: patterns.join(" "), source };
            PatternMatcher::new(patterns).map(Some).map_err(invalid)
        };
        Ok(Copier {
            target,
            source,
            options,
            round,
            include: matcher("include", &options.include)?,
            exclude: matcher("exclude", &options.exclude)?,
            copies: Mutex::default(),
        })
    }

    fn run(&self, node: Node, place: Place, shown: &str, budget: &Budget) -> Result<(), FileError> {
        if !node.meta.is_dir() {
            let Place::In(dir, name) = place else {
                return Err(FileError::ReplacesDirectory { path: shown.to_owned() });
            };
            return self.file(&node, &dir, &name);
        }
        let name = match &place {
            Place::Root => OsString::new(),
            Place::In(_, name) => name.clone(),
        };
        let folder = Arc::new(Folder {
            node,
            components: String::new(),
            above: None,
            place: Mutex::new(Made::NotYet(Some(place))),
            name,
            wanted: true,
            include: MatchInfo::default(),
            exclude: MatchInfo::default(),
            open: AtomicUsize::new(1),
        });
        crew::run(budget, vec![Job::Folder(folder)], |job, queue| self.job(job, queue))
    }

    fn job(&self, job: Job, queue: &Queue<Job, FileError>) -> Result<(), FileError> {
        if self.options.cancel.load(Ordering::Relaxed) {
            return Err(FileError::Cancelled);
        }
        match job {
            Job::Folder(folder) => {
                self.folder(&folder, queue)?;
                self.done(folder)
            }
            Job::Files(folder, files) => {
                let dir = self.make(&folder)?;
                self.files(&files, &dir)?;
                self.done(folder)
            }
        }
    }

    fn folder(&self, folder: &Arc<Folder>, queue: &Queue<Job, FileError>) -> Result<(), FileError> {
        if folder.wanted {
            self.make(folder)?;
        }
        let mut files = Vec::new();
        let push_files = |files: &mut Vec<Entry>| {
            folder.open.fetch_add(1, Ordering::AcqRel);
            queue.push(Job::Files(folder.clone(), std::mem::take(files)));
        };
        for entry in self.source.union.list(&folder.node.path)? {
            let name = entry.name().to_string_lossy();
            let components = if folder.components.is_empty() {
                name.into_owned()
            } else {
                format!("{}/{name}", folder.components)
            };
            let (wanted, excluded, include, exclude) = self.wanted(folder, &components);
            if entry.kind() == FileKind::Dir {
                let has_exceptions = self.exclude.as_ref().is_some_and(PatternMatcher::has_exclusions);
                if !wanted && excluded && !has_exceptions {
                    continue;
                }
                folder.open.fetch_add(1, Ordering::AcqRel);
                queue.push(Job::Folder(Arc::new(Folder {
                    name: entry.name().to_owned(),
                    node: entry.look(self.source.union.format())?,
                    components,
                    above: Some(folder.clone()),
                    place: Mutex::new(Made::NotYet(None)),
                    wanted,
                    include,
                    exclude,
                    open: AtomicUsize::new(1),
                })));
            } else if wanted {
                files.push(entry);
                if files.len() == FILES_PER_JOB {
                    push_files(&mut files);
                }
            }
        }
        if files.is_empty() {
            return Ok(());
        }
        // The rest is done right here.
        let dir = self.make(folder)?;
        self.files(&files, &dir)
    }

    fn wanted(&self, folder: &Folder, components: &str) -> (bool, bool, MatchInfo, MatchInfo) {
        let (mut wanted, mut excluded) = (true, false);
        let (mut include, mut exclude) = (MatchInfo::default(), MatchInfo::default());
        if let Some(matcher) = &self.include {
            (wanted, include) = matcher.matches_using_parent_results(components, &folder.include);
        }
        if let Some(matcher) = &self.exclude {
            (excluded, exclude) = matcher.matches_using_parent_results(components, &folder.exclude);
            wanted &= !excluded;
        }
        (wanted, excluded, include, exclude)
    }

    /// The folder in the target, made now if it is not there yet.
    fn make(&self, folder: &Folder) -> Result<Arc<TargetDir>, FileError> {
        let mut place = folder.place.lock().unwrap_or_else(PoisonError::into_inner);
        let (parent, name) = match &mut *place {
            Made::Yes { dir, .. } => return Ok(dir.clone()),
            Made::NotYet(at) => match (at.clone(), &folder.above) {
                (Some(Place::Root), _) => {
                    let dir = self.target.root().clone();
                    *place = Made::Yes { dir: dir.clone(), created: false };
                    return Ok(dir);
                }
                (Some(Place::In(dir, name)), _) => (dir, name),
                (None, Some(above)) => (self.make(above)?, folder.name.clone()),
                // Only the folder at the top has none above, and its place was given.
                (None, None) => return Err(FileError::Cancelled),
            },
        };
        let (dir, created) = self.make_in(&parent, &name, folder)?;
        *place = Made::Yes { dir: dir.clone(), created };
        Ok(dir)
    }

    /// Makes or enters the folder `name` of `parent`.
    fn make_in(
        &self,
        parent: &Arc<TargetDir>,
        name: &OsStr,
        folder: &Folder,
    ) -> Result<(Arc<TargetDir>, bool), FileError> {
        let target = self.target;
        let fail = |errno| PathError::new("mkdir", parent.shown(Some(name)), errno);
        let found = parent.lookup(target, name).map_err(fail)?;
        match found {
            Some(found) if found.meta().is_dir() => {
                let dir = parent.open_dir(target, name, &found).map_err(fail)?;
                // Below the top, what is copied gives the folder its mode; its other attributes follow at the end.
                if folder.above.is_some() && found.meta().mode != folder.node.meta.mode {
                    dir.set_own_mode(target, folder.node.meta.mode).map_err(fail)?;
                }
                Ok((dir, false))
            }
            Some(_) if self.options.always_replace && folder.wanted => {
                parent.remove(target, name).map_err(fail)?;
                Ok((parent.mkdir(target, name).map_err(fail)?, true))
            }
            Some(_) => Err(FileError::NonDirectory { path: parent.shown(Some(name)) }),
            None => Ok((parent.mkdir(target, name).map_err(fail)?, true)),
        }
    }

    /// One thing in the folder is done; after the last one the folder gets its own attributes.
    fn done(&self, folder: Arc<Folder>) -> Result<(), FileError> {
        let mut at = Some(folder);
        while let Some(folder) = at {
            if folder.open.fetch_sub(1, Ordering::AcqRel) > 1 {
                return Ok(());
            }
            self.settle(&folder)?;
            at = folder.above.clone();
        }
        Ok(())
    }

    fn settle(&self, folder: &Folder) -> Result<(), FileError> {
        let place = folder.place.lock().unwrap_or_else(PoisonError::into_inner);
        let Made::Yes { dir, created } = &*place else { return Ok(()) };
        let fail = |errno| PathError::new("chmod", dir.shown(None), errno);
        let attributes = self.attributes(&folder.node.meta);
        if *created || (folder.above.is_some() && folder.wanted) {
            let xattrs = xattrs_of(&folder.node).map_err(fail)?;
            dir.set_own_attributes(self.target, &attributes, &xattrs).map_err(fail)?;
        } else if folder.above.is_none() {
            // The folder was there: it keeps what it has but looks as old as the source.
            if let Some(mtime) = attributes.mtime {
                dir.set_own_mtime(self.target, mtime).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn attributes(&self, meta: &Meta) -> Attributes {
        let owner = self.options.owner.unwrap_or(Owner { uid: meta.uid, gid: meta.gid });
        Attributes {
            uid: owner.uid,
            gid: owner.gid,
            mode: self.options.mode.apply(meta),
            mtime: Some(self.options.mtime.unwrap_or((meta.mtime_s, meta.mtime_ns))),
        }
    }

    fn files(&self, files: &[Entry], dir: &Arc<TargetDir>) -> Result<(), FileError> {
        for entry in files {
            if !self.link_unseen(entry, dir)? {
                self.file(&entry.look(self.source.union.format())?, dir, entry.name())?;
            }
        }
        Ok(())
    }

    /// Links a file for which nothing hangs on its attributes, and tells whether it did.
    fn link_unseen(&self, entry: &Entry, dir: &TargetDir) -> Result<bool, FileError> {
        let keeps_all = self.options.owner.is_none()
            && self.options.mode == ModeRule::Keep
            && self.options.mtime.is_none();
        let may_link = keeps_all && self.round.is_none() && self.linkable(entry.layer());
        if entry.kind() != FileKind::File || !may_link || dir.shows_lower() {
            return Ok(false);
        }
        match dir.link(self.target, entry.name(), entry.holder(), entry.name()) {
            Ok(()) => Ok(true),
            // Something is there, or it can't be linked: that is looked into.
            Err(Errno::EXIST | Errno::XDEV | Errno::MLINK | Errno::PERM) => Ok(false),
            Err(errno) => Err(PathError::new("open", dir.shown(Some(entry.name())), errno).into()),
        }
    }

    fn linkable(&self, layer: usize) -> bool {
        self.source.linkable.get(layer).copied().unwrap_or(false)
    }

    /// Copies what is no folder to `name` in `dir`.
    fn file(&self, node: &Node, dir: &Arc<TargetDir>, name: &OsStr) -> Result<(), FileError> {
        let target = self.target;
        let fail = |errno| PathError::new("open", dir.shown(Some(name)), errno);
        let attributes = self.attributes(&node.meta);
        // Mostly nothing is in the way, and trying costs less than looking.
        if node.meta.is_file() && !dir.shows_lower() {
            match self.regular(node, dir, name, &attributes) {
                Err(Errno::EXIST) => {}
                done => return Ok(done.map_err(fail)?),
            }
        }
        match dir.lookup(target, name).map_err(fail)? {
            Some(found) if found.meta().is_dir() && !self.options.always_replace => {
                return Err(FileError::ReplacesDirectory { path: dir.shown(Some(name)) });
            }
            Some(_) => dir.remove(target, name).map_err(fail)?,
            None => {}
        }
        match node.meta.kind {
            FileKind::File => self.regular(node, dir, name, &attributes).map_err(fail)?,
            FileKind::Symlink => {
                let to = node.read_link()?.into_os_string().into_vec();
                dir.symlink(target, name, &to).map_err(fail)?;
                self.finish_special(node, dir, name, &attributes).map_err(fail)?;
            }
            _ => {
                dir.mknod(target, name, &node.meta).map_err(fail)?;
                self.finish_special(node, dir, name, &attributes).map_err(fail)?;
            }
        }
        Ok(())
    }

    fn finish_special(
        &self,
        node: &Node,
        dir: &TargetDir,
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        let kind = if node.meta.kind == FileKind::Socket { FileKind::File } else { node.meta.kind };
        dir.set_attributes_of(self.target, name, kind, attributes, &xattrs_of(node)?)
    }

    fn regular(
        &self,
        node: &Node,
        dir: &Arc<TargetDir>,
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        if self.may_link(node, attributes) {
            match dir.link(self.target, name, node.holder(), node.name()) {
                // Another file system, or a file with as many names as there may be.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => {}
                other => return other,
            }
        }
        if node.meta.nlink < 2 {
            return self.copy_bytes(node, dir, name, attributes);
        }
        // Names of one file in the source are names of one file in the copy, too.
        let first = {
            let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
            copies.entry((node.meta.dev, node.meta.ino)).or_default().clone()
        };
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first_dir, first_name)) = &*first {
            let from = first_dir.upper(self.target)?;
            return dir.link(self.target, name, from, first_name);
        }
        self.copy_bytes(node, dir, name, attributes)?;
        *first = Some((dir.clone(), name.to_owned()));
        Ok(())
    }

    fn may_link(&self, node: &Node, attributes: &Attributes) -> bool {
        let meta = &node.meta;
        let same = Attributes::of(meta);
        let unchanged = (same.uid, same.gid, same.mode, same.mtime)
            == (attributes.uid, attributes.gid, attributes.mode, attributes.mtime);
        if !unchanged || !self.linkable(node.layer()) {
            return false;
        }
        let Some(round) = self.round else { return true };
        // Two copies of one file are two files, which must not turn into one here.
        let mut linked = self.target.linked.lock().unwrap_or_else(PoisonError::into_inner);
        *linked.entry((meta.dev, meta.ino)).or_insert(round) == round
    }

    fn copy_bytes(
        &self,
        node: &Node,
        dir: &TargetDir,
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), Errno> {
        let from = node.open().map_err(|error| errno_of(&error))?;
        let to = dir.create_file(self.target, name)?;
        copy_content(&OwnedFd::from(from), &to, node.meta.size)?;
        let mut attributes = *attributes;
        let mtime = attributes.mtime.take();
        set_attributes(std::os::fd::AsFd::as_fd(&to), &attributes, self.target.format())?;
        // Capabilities would not survive a change of owner, so they come after it.
        let xattrs = xattrs_of(node)?;
        if !xattrs.is_empty() {
            set_what_is_possible(dir.upper(self.target)?, name.as_bytes(), &xattrs);
        }
        if let Some(mtime) = mtime {
            super::target::set_mtime(&to, mtime)?;
        }
        Ok(())
    }
}

fn xattrs_of(node: &Node) -> Result<Vec<Xattr>, Errno> {
    list_xattrs(node.holder(), node.name().as_bytes())
}

/// All of `from` to `to`, in the kernel where it can.
fn copy_content(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
    let mut left = size;
    while left > 0 {
        let chunk = usize::try_from(left.min(1 << 30)).expect("a gibibyte fits");
        match rustix::fs::copy_file_range(from, None, to, None, chunk) {
            Ok(0) => return Ok(()),
            Ok(copied) => left = left.saturating_sub(copied as u64),
            Err(Errno::NOSYS | Errno::XDEV | Errno::PERM | Errno::IO | Errno::OPNOTSUPP | Errno::INVAL)
                if left == size =>
            {
                return copy_through_memory(from, to);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_through_memory(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = vec![0_u8; 128 << 10];
    loop {
        let length = match rustix::io::read(from, buffer.as_mut_slice()) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut written = 0;
        while written < length {
            match rustix::io::write(to, &buffer[written..length]) {
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}
