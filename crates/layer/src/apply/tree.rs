//! The directories of the layer being unpacked: resolving names beneath it, making parents, replacing what was there.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::write::{Handle, Job, Maker, Team, What};
use crate::error::{Error, Result};
use crate::meta::{FileKind, Meta};
use crate::overlay::{self, Format};
use crate::tar::{Entry, EntryKind};
use crate::tree::{self, CopyHow};
use crate::union::{Node, Union};

/// How many directories of the layer are kept open.
const OPEN_MAX: usize = 256;
/// After so many files without a barrier one is put in, which bounds what is remembered about them.
const PENDING_MAX: usize = 1 << 16;
/// How many symlinks a name may lead through, as upstream allows.
const LINKS_MAX: usize = 255;
/// The longest name taken; the system's own limit.
const PATH_BYTES_MAX: usize = 4096;

const OPEN_DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is known of one directory.
struct Known {
    id: u64,
    handle: Option<Arc<Handle>>,
    /// Only mentioned as a parent, and nothing known from below.
    implied: bool,
    /// The attributes it gets in the end.
    entry: Option<Box<Entry>>,
}

pub(super) struct Tree<'a> {
    root: Arc<Handle>,
    format: Format,
    lower: Option<&'a Union>,
    /// Put the attributes of directories that were there before back in the end.
    keep_existing: bool,
    maker: &'a Maker,
    team: &'a Team<'a>,
    dirs: BTreeMap<PathBuf, Known>,
    open: VecDeque<PathBuf>,
    next_id: u64,
    pending: HashSet<u64>,
    hash: RandomState,
    /// Hard links to files that this layer does not have.
    links: Vec<(PathBuf, PathBuf)>,
}

/// What leans on lower layers.
pub(super) struct Open {
    /// Directories that were only mentioned as parents.
    pub implied: Vec<PathBuf>,
    /// Hard links and their targets.
    pub links: Vec<(PathBuf, PathBuf)>,
}

/// What a path in the layer is.
enum Look {
    Nothing,
    Whiteout,
    Dir,
    Symlink(PathBuf),
    Other,
}

enum Step {
    Root,
    Up,
    Down(OsString),
}

impl<'a> Tree<'a> {
    pub(super) fn open(
        dir: &Path,
        format: Format,
        lower: Option<&'a Union>,
        keep_existing: bool,
        maker: &'a Maker,
        team: &'a Team<'a>,
    ) -> Result<Self> {
        let fd =
            rustix::fs::open(dir, OPEN_DIR, Mode::empty()).map_err(Error::io("open layer directory", dir))?;
        Ok(Self {
            root: Arc::new(Handle { fd, id: 0 }),
            format,
            lower,
            keep_existing,
            maker,
            team,
            dirs: BTreeMap::new(),
            open: VecDeque::new(),
            next_id: 1,
            pending: HashSet::new(),
            hash: RandomState::new(),
            links: Vec::new(),
        })
    }

    /// A directory entry of the archive.
    pub(super) fn directory(&mut self, path: &Path, entry: Entry) -> Result<()> {
        let (parent, name) = self.place(path)?;
        let at = parent.join(name);
        if !self.dirs.contains_key(&at) {
            self.make_dir(&parent, name, None)?;
        }
        let known = self.dirs.get_mut(&at).expect("made or found just now");
        known.implied = false;
        known.entry = Some(Box::new(Entry { path: at, ..entry }));
        Ok(())
    }

    /// Takes an entry's place: gives the directory to make it in and its name there. What is in the way and would not
    /// simply be replaced (a directory) goes.
    pub(super) fn claim(&mut self, path: &Path) -> Result<(Arc<Handle>, OsString)> {
        let (parent, name) = self.place(path)?;
        let at = parent.join(name);
        if !self.links.is_empty() {
            self.links.retain(|(link, _)| *link != at);
        }
        if self.dirs.contains_key(&at)
            || (self.keep_existing || self.lower.is_some()) && self.is_dir(&parent, name)?
        {
            self.remove_dir(&parent, name)?;
        }
        Ok((self.handle(&parent)?, name.to_owned()))
    }

    /// Has a small file made. Its place must be claimed.
    pub(super) fn submit(&mut self, dir: Arc<Handle>, name: OsString, what: What) -> Result<()> {
        if self.pending.len() >= PENDING_MAX {
            self.barrier()?;
        }
        self.pending.insert(self.hash.hash_one((dir.id, &name)));
        self.team.submit(Job { dir, name, what })
    }

    /// Waits for a file that may still be under way under this name.
    pub(super) fn settle_name(&mut self, dir: &Handle, name: &OsStr) -> Result<()> {
        if self.pending.contains(&self.hash.hash_one((dir.id, name))) {
            self.barrier()?;
        }
        Ok(())
    }

    /// `name` was removed from lower layers.
    pub(super) fn whiteout(&mut self, path: &Path) -> Result<()> {
        let (parent, name) = self.place(path)?;
        let at = parent.join(name);
        if self.dirs.contains_key(&at) {
            // A directory of this layer instead of what was below.
            return self.opaque(&at);
        }
        let dir = self.handle(&parent)?;
        self.submit(dir, name.to_owned(), What::Whiteout)
    }

    /// Nothing below shows through the directory `path`.
    pub(super) fn hide_below(&mut self, path: &Path) -> Result<()> {
        let at = self.resolve(path, path)?;
        self.opaque(&at)
    }

    /// One more name for `target`.
    pub(super) fn hard_link(&mut self, path: &Path, target: &Path, entry: &Entry) -> Result<()> {
        let (dir, name) = self.claim(path)?;
        self.settle_name(&dir, &name)?;
        let Some((from, from_name)) = self.find(target)? else {
            let at = self.place(path).map(|(parent, name)| parent.join(name))?;
            self.links.push((at, target.to_owned()));
            return Ok(());
        };
        if Arc::ptr_eq(&from, &dir) && from_name == name {
            return Err(Error::entry(path, "hard link to itself"));
        }
        let link = || rustix::fs::linkat(&from.fd, &from_name, &dir.fd, &name, AtFlags::empty());
        let linked = match link() {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&dir.fd, &name, AtFlags::empty()).map_err(Error::io("replace", path))?;
                link()
            }
            linked => linked,
        };
        match linked {
            Ok(()) => {}
            Err(Errno::PERM) => return Err(Error::entry(path, "hard link to a directory")),
            Err(error) => return Err(Error::io("link", path)(error)),
        }
        let meta = Meta::at(&dir.fd, &name).map_err(Error::io("look up", path))?;
        if meta.kind == FileKind::Symlink {
            return Ok(());
        }
        self.maker.attributes(dir.fd.as_fd(), &name, entry)
    }

    /// Finishes: gives directories their attributes, and says what leans on lower layers.
    pub(super) fn finish(mut self) -> Result<Open> {
        self.barrier()?;
        let mut implied = Vec::new();
        // Deepest first: a directory's own mode may close it.
        for (path, known) in self.dirs.iter().rev() {
            if known.implied {
                implied.push(path.clone());
            }
            if let Some(entry) = &known.entry {
                self.maker.attributes(self.root.fd.as_fd(), path.as_os_str(), entry)?;
            } else if known.implied {
                self.maker.attributes(
                    self.root.fd.as_fd(),
                    path.as_os_str(),
                    &Entry::new(EntryKind::Dir, path),
                )?;
            }
        }
        implied.reverse();
        Ok(Open { implied, links: self.links })
    }

    pub(super) fn barrier(&mut self) -> Result<()> {
        self.pending.clear();
        self.team.barrier()
    }

    /// The attributes that a directory of the layer gets in the end.
    pub(super) fn set_attributes(&mut self, path: &Path, entry: Entry) -> Result<()> {
        let at = self.resolve(path, path)?;
        if let Some(known) = self.dirs.get_mut(&at) {
            known.implied = false;
            known.entry = Some(Box::new(entry));
        }
        Ok(())
    }

    /// The real directory and the name in it of an entry that is not the root; missing parents are made.
    fn place<'p>(&mut self, path: &'p Path) -> Result<(PathBuf, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| Error::entry(path, "entry has no name"))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.resolve(parent, path)?, name))
    }

    /// Where a directory's path really leads in the layer. What is missing is made.
    pub(super) fn resolve(&mut self, path: &Path, shown: &Path) -> Result<PathBuf> {
        if path.as_os_str().is_empty() || self.dirs.contains_key(path) {
            return Ok(path.to_owned());
        }
        let mut todo = VecDeque::new();
        queue_front(&mut todo, path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(step) = todo.pop_front() {
            let name = match step {
                Step::Root => {
                    at.clear();
                    continue;
                }
                Step::Up => {
                    at.pop();
                    continue;
                }
                Step::Down(name) => name,
            };
            let next = at.join(&name);
            if next.as_os_str().len() > PATH_BYTES_MAX {
                return Err(Error::entry(shown, "name is too long"));
            }
            if self.dirs.contains_key(&next) {
                at = next;
                continue;
            }
            let link = match self.look(&at, &name)? {
                Look::Dir => {
                    self.adopt(&at, &name)?;
                    None
                }
                Look::Symlink(target) => Some(target),
                Look::Other => return Err(Error::entry(shown, "a parent is not a directory")),
                Look::Whiteout => {
                    self.make_dir(&at, &name, None)?;
                    None
                }
                Look::Nothing => match self.lower_node(&next)? {
                    Some(node) if node.meta.is_symlink() => Some(node.read_link()?),
                    Some(node) if node.meta.is_dir() => {
                        self.make_dir(&at, &name, Some(&node))?;
                        None
                    }
                    Some(_) => return Err(Error::entry(shown, "a parent is not a directory")),
                    None => {
                        self.make_dir(&at, &name, None)?;
                        None
                    }
                },
            };
            match link {
                None => at = next,
                Some(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Error::entry(shown, "too many symbolic links among its parents"));
                    }
                    queue_front(&mut todo, &target);
                }
            }
        }
        Ok(at)
    }

    /// The file that a hard link names: its directory and name in the layer, copied up from below if it must be.
    fn find(&mut self, target: &Path) -> Result<Option<(Arc<Handle>, OsString)>> {
        let name = target.file_name().ok_or_else(|| Error::entry(target, "hard link to the root"))?;
        let parent = target.parent().unwrap_or(Path::new(""));
        let Some(parent) = self.resolve_existing(parent)? else { return Ok(None) };
        let exists = self.exists_dir(&parent);
        if exists {
            match self.look(&parent, name)? {
                Look::Nothing => {}
                Look::Whiteout => return Err(Error::entry(target, "hard link to a removed file")),
                Look::Dir => return Err(Error::entry(target, "hard link to a directory")),
                Look::Symlink(_) | Look::Other => return Ok(Some((self.handle(&parent)?, name.to_owned()))),
            }
        }
        if self.lower.is_none() {
            return Ok(None);
        }
        let at = parent.join(name);
        let node = self
            .lower_node(&at)?
            .ok_or_else(|| Error::entry(&at, "hard link to a file that does not exist"))?;
        if node.meta.is_dir() {
            return Err(Error::entry(&at, "hard link to a directory"));
        }
        let parent = self.resolve(&parent, &at)?;
        let dir = self.handle(&parent)?;
        tree::copy_node(&node, dir.fd.as_fd(), name, CopyHow::Copy, &self.format)?;
        Ok(Some((dir, name.to_owned())))
    }

    /// Where a directory's path leads, making nothing; `None` if that cannot be said without knowing what is below.
    fn resolve_existing(&mut self, path: &Path) -> Result<Option<PathBuf>> {
        let mut todo = VecDeque::new();
        queue_front(&mut todo, path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(step) = todo.pop_front() {
            let name = match step {
                Step::Root => {
                    at.clear();
                    continue;
                }
                Step::Up => {
                    at.pop();
                    continue;
                }
                Step::Down(name) => name,
            };
            let next = at.join(&name);
            let look = if self.exists_dir(&at) { self.look(&at, &name)? } else { Look::Nothing };
            let link = match look {
                Look::Dir => {
                    if !self.dirs.contains_key(&next) {
                        self.adopt(&at, &name)?;
                    }
                    None
                }
                Look::Symlink(target) => Some(target),
                Look::Other | Look::Whiteout => {
                    return Err(Error::entry(path, "hard link to a file that does not exist"));
                }
                Look::Nothing if self.lower.is_none() => return Ok(None),
                Look::Nothing => match self.lower_node(&next)? {
                    Some(node) if node.meta.is_symlink() => Some(node.read_link()?),
                    Some(node) if node.meta.is_dir() => None,
                    _ => return Err(Error::entry(path, "hard link to a file that does not exist")),
                },
            };
            match link {
                None => at = next,
                Some(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Error::entry(path, "too many symbolic links among its parents"));
                    }
                    queue_front(&mut todo, &target);
                }
            }
        }
        Ok(Some(at))
    }

    fn exists_dir(&self, path: &Path) -> bool {
        path.as_os_str().is_empty() || self.dirs.contains_key(path)
    }

    fn lower_node(&self, path: &Path) -> Result<Option<Node>> {
        match self.lower {
            Some(lower) => lower.lookup(path),
            None => Ok(None),
        }
    }

    fn look(&mut self, parent: &Path, name: &OsStr) -> Result<Look> {
        let dir = self.handle(parent)?;
        self.settle_name(&dir, name)?;
        let failed = |error: Errno| Error::io("look up", parent.join(name))(error);
        match Meta::at(&dir.fd, name) {
            Err(Errno::NOENT) => Ok(Look::Nothing),
            Err(Errno::NAMETOOLONG) => Err(Error::entry(parent.join(name), "name is too long")),
            Err(error) => Err(failed(error)),
            Ok(meta) if overlay::is_whiteout(&meta) => Ok(Look::Whiteout),
            Ok(meta) if meta.is_dir() => Ok(Look::Dir),
            Ok(meta) if meta.is_symlink() => {
                let target = rustix::fs::readlinkat(&dir.fd, name, Vec::new()).map_err(failed)?;
                Ok(Look::Symlink(crate::tree::path_of(target.into_bytes())))
            }
            Ok(_) => Ok(Look::Other),
        }
    }

    fn is_dir(&mut self, parent: &Path, name: &OsStr) -> Result<bool> {
        Ok(matches!(self.look(parent, name)?, Look::Dir))
    }

    /// Makes a directory (with the attributes of the one below, if that is given) or takes over the one there.
    fn make_dir(&mut self, parent: &Path, name: &OsStr, below: Option<&Node>) -> Result<()> {
        let at = parent.join(name);
        let dir = self.handle(parent)?;
        self.settle_name(&dir, name)?;
        // Closed to others until it has its own mode.
        let make = || rustix::fs::mkdirat(&dir.fd, name, Mode::RWXU);
        match make() {
            Ok(()) => {}
            Err(Errno::EXIST) => match self.look(parent, name)? {
                Look::Dir => return self.adopt(parent, name),
                look => {
                    rustix::fs::unlinkat(&dir.fd, name, AtFlags::empty())
                        .map_err(Error::io("replace", &at))?;
                    make().map_err(Error::io("create directory", &at))?;
                    if matches!(look, Look::Whiteout) {
                        self.know(&at, None);
                        self.opaque(&at)?;
                    }
                }
            },
            Err(Errno::NAMETOOLONG) => return Err(Error::entry(at, "name is too long")),
            Err(error) => return Err(Error::io("create directory", at)(error)),
        }
        self.maker.count(4096);
        let entry = match below {
            Some(node) => Some(tree::entry_of(node)?),
            None => None,
        };
        let implied = entry.is_none();
        let known = self.know(&at, entry);
        known.implied = implied;
        Ok(())
    }

    /// Takes note of a directory that is there already.
    fn adopt(&mut self, parent: &Path, name: &OsStr) -> Result<()> {
        let at = parent.join(name);
        let mut entry = None;
        if self.keep_existing {
            let dir = self.handle(parent)?;
            let meta = Meta::at(&dir.fd, name).map_err(Error::io("look up", &at))?;
            entry = Some(tree::entry_of_dir(&at, &meta));
        }
        self.know(&at, entry);
        Ok(())
    }

    fn know(&mut self, at: &Path, entry: Option<Entry>) -> &mut Known {
        let id = self.next_id;
        self.next_id += 1;
        let fresh = Known { id, handle: None, implied: false, entry: None };
        let known = self.dirs.entry(at.to_owned()).or_insert(fresh);
        if let Some(entry) = entry {
            known.entry = Some(Box::new(entry));
        }
        known
    }

    fn opaque(&mut self, at: &Path) -> Result<()> {
        let dir = self.handle(at)?;
        overlay::set_opaque(dir.fd.as_fd(), &self.format).map_err(Error::io("mark as opaque", at))
    }

    /// An open handle of a known directory.
    pub(super) fn handle(&mut self, path: &Path) -> Result<Arc<Handle>> {
        let Some(known) = self.dirs.get(path) else { return Ok(Arc::clone(&self.root)) };
        if let Some(handle) = &known.handle {
            return Ok(Arc::clone(handle));
        }
        let id = known.id;
        let parent =
            self.dirs.get(path.parent().unwrap_or(Path::new(""))).and_then(|known| known.handle.clone());
        let opened = match (parent, path.file_name()) {
            (Some(parent), Some(name)) => rustix::fs::openat(&parent.fd, name, OPEN_DIR, Mode::empty()),
            _ => tree::open_beneath(self.root.fd.as_fd(), path),
        };
        let fd = opened.map_err(Error::io("open directory", path))?;
        let handle = Arc::new(Handle { fd, id });
        if self.open.len() >= OPEN_MAX
            && let Some(oldest) = self.open.pop_front()
            && let Some(known) = self.dirs.get_mut(&oldest)
        {
            known.handle = None;
        }
        self.open.push_back(path.to_owned());
        if let Some(known) = self.dirs.get_mut(path) {
            known.handle = Some(Arc::clone(&handle));
        }
        Ok(handle)
    }

    fn remove_dir(&mut self, parent: &Path, name: &OsStr) -> Result<()> {
        self.barrier()?;
        let at = parent.join(name);
        let dir = self.handle(parent)?;
        tree::remove_all(dir.fd.as_fd(), name).map_err(Error::io("remove", &at))?;
        let gone: Vec<PathBuf> = self
            .dirs
            .range::<Path, _>((Bound::Included(at.as_path()), Bound::Unbounded))
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&at))
            .cloned()
            .collect();
        for path in &gone {
            self.dirs.remove(path);
        }
        self.links.retain(|(link, _)| !link.starts_with(&at));
        Ok(())
    }
}

fn queue_front(todo: &mut VecDeque<Step>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::RootDir => todo.push_front(Step::Root),
            Component::ParentDir => todo.push_front(Step::Up),
            Component::Normal(name) => todo.push_front(Step::Down(name.to_owned())),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// An archive's name as a path from the root: `.` and inner `..` are taken out; one that climbs out is an error.
pub(super) fn clean(name: &Path) -> Result<PathBuf> {
    if name.as_os_str().len() > PATH_BYTES_MAX {
        return Err(Error::entry(name, "name is too long"));
    }
    let mut clean = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                if !clean.pop() {
                    return Err(Error::entry(name, "name climbs out of the root"));
                }
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}
