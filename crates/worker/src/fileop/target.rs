//! The layer that file actions write: its own directory, with the layers below showing through where it has nothing.
//!
//! No overlay is mounted. What would be a copy-up there is done here: a folder that gets new content is made in the
//! layer with the attributes of the one below, a name that goes away becomes a whiteout, a folder made in place of
//! one that went away becomes opaque. All names are resolved beneath directory handles.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_layer::overlay::{Format, OWNER_XATTR, is_opaque, is_whiteout, make_whiteout, set_opaque};
use kiln_layer::union::{Node, Union};
use kiln_layer::{FileKind, Meta};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::error::FileError;
use crate::error::PathError;
use crate::raw::{DIR_FLAGS, Xattr, list_xattrs, meta_at, meta_of, names, set_what_is_possible, xattr_path};

/// Links followed in one path before it counts as a loop.
const LINKS_MAX: usize = 255;

/// The layer being written.
pub struct Target {
    root: Arc<TargetDir>,
    lower: Union,
    /// The directories of the layers below, lowest first.
    lower_dirs: Vec<PathBuf>,
    format: Format,
    /// Inodes of other layers that this one has linked to itself, and by which copy: see [`super::copy`].
    pub(super) linked: Mutex<HashMap<(u64, u64), usize>>,
}

/// A folder as it shows in the new layer, whether the layer has it already or not.
pub struct TargetDir {
    parent: Option<(Arc<TargetDir>, OsString)>,
    path: PathBuf,
    upper: OnceLock<OwnedFd>,
    making: Mutex<()>,
    /// Names that the layer has no opinion on are looked up below.
    lower_shows: bool,
}

/// What a name in a [`TargetDir`] is.
pub enum Found {
    Upper(Meta),
    Lower(Node),
}

impl Found {
    pub fn meta(&self) -> &Meta {
        match self {
            Found::Upper(meta) => meta,
            Found::Lower(node) => &node.meta,
        }
    }
}

/// Owner, mode and times to give to something.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Seconds and nanoseconds; `None` leaves it to the clock.
    pub mtime: Option<(i64, u32)>,
}

impl Target {
    /// Writes into `layer`, the empty directory of a new layer on top of the layers in `lower_dirs`, lowest first.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(layer: &Path, lower_dirs: Vec<PathBuf>, format: Format) -> Result<Target, FileError> {
        let lower = Union::open(&lower_dirs, &format)?;
        let fail = |errno| PathError::new("open", "/", errno);
        let fd = rustix::fs::openat(CWD, layer, DIR_FLAGS, Mode::empty()).map_err(fail)?;
        let upper = OnceLock::new();
        upper.set(fd).expect("it is new");
        let root = TargetDir {
            parent: None,
            path: PathBuf::new(),
            upper,
            making: Mutex::default(),
            lower_shows: true,
        };
        Ok(Target { root: Arc::new(root), lower, lower_dirs, format, linked: Mutex::default() })
    }

    pub fn root(&self) -> &Arc<TargetDir> {
        &self.root
    }

    /// Follows `path` through links as far as it exists; the rest is kept as it is, `..` taking one name back.
    ///
    /// # Errors
    /// A path that goes on below a file, too many links, and what the file system says.
    pub fn resolve(&self, path: &str) -> Result<Vec<OsString>, FileError> {
        let fail = |errno| PathError::new("lstat", path, errno);
        let mut pending: Vec<Vec<u8>> = components(path.as_bytes());
        let mut done: Vec<OsString> = Vec::new();
        // The folders that `done` leads through, as long as they exist.
        let mut dirs = vec![self.root.clone()];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == b".." {
                done.pop();
                dirs.truncate(done.len() + 1);
                continue;
            }
            let name = OsString::from_vec(name);
            let found = match dirs.get(done.len()) {
                Some(dir) => dir.lookup(self, &name).map_err(fail)?.map(|found| (dir.clone(), found)),
                None => None,
            };
            let Some((dir, found)) = found else {
                done.push(name);
                continue;
            };
            match found.meta().kind {
                FileKind::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(FileError::TooManyLinks { path: path.to_owned() });
                    }
                    let target = dir.read_link(&name, &found).map_err(fail)?;
                    if target.first() == Some(&b'/') {
                        done.clear();
                        dirs.truncate(1);
                    }
                    pending.append(&mut components(&target));
                }
                FileKind::Dir => {
                    dirs.push(dir.open_dir(self, &name, &found).map_err(fail)?);
                    done.push(name);
                }
                _ if pending.is_empty() => done.push(name),
                _ => return Err(PathError::new("lstat", text(&done, &name), Errno::NOTDIR).into()),
            }
        }
        Ok(done)
    }

    /// The folder at `path`, which has no links in it; `None` where there is nothing or no folder.
    pub fn dir(&self, path: &[OsString]) -> Result<Option<Arc<TargetDir>>, PathError> {
        let mut dir = self.root.clone();
        for name in path {
            let fail = |errno| PathError::new("lstat", show(&dir.path.join(name)), errno);
            match dir.lookup(self, name).map_err(fail)? {
                Some(found) if found.meta().is_dir() => {
                    dir = dir.open_dir(self, name, &found).map_err(fail)?
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(dir))
    }

    /// What is at `path`, which has no links in it but perhaps at its end. The root is always a folder.
    pub fn stat(&self, path: &[OsString]) -> Result<Option<Meta>, PathError> {
        let Some((name, parents)) = path.split_last() else {
            return self.root.meta(self).map(Some).map_err(|errno| PathError::new("lstat", "/", errno));
        };
        let Some(dir) = self.dir(parents)? else { return Ok(None) };
        let found = dir
            .lookup(self, name)
            .map_err(|errno| PathError::new("lstat", show(&dir.path.join(name)), errno))?;
        Ok(found.map(|found| found.meta().clone()))
    }

    /// The directories below the folder `path` in the layers below, lowest first, as far as they show through.
    pub(super) fn lower_dirs_at(&self, path: &[OsString]) -> Result<Vec<PathBuf>, FileError> {
        let fail = |errno| PathError::new("open", show(&path.iter().collect::<PathBuf>()), errno);
        let mut shown = Vec::new();
        let shows = match path.split_last() {
            None => true,
            Some(_) => self.dir(path)?.is_some_and(|dir| dir.lower_shows),
        };
        if !shows {
            return Ok(shown);
        }
        'layers: for layer in self.lower_dirs.iter().rev() {
            let mut fd = rustix::fs::openat(CWD, layer, DIR_FLAGS, Mode::empty()).map_err(fail)?;
            let mut hides = false;
            for name in path {
                fd = match rustix::fs::openat(&fd, name, DIR_FLAGS, Mode::empty()) {
                    Ok(fd) => fd,
                    Err(Errno::NOENT) if hides => break 'layers,
                    Err(Errno::NOENT) => continue 'layers,
                    // A file, a link or a whiteout: nothing below it shows.
                    Err(Errno::NOTDIR | Errno::LOOP) => break 'layers,
                    Err(errno) => return Err(fail(errno).into()),
                };
                hides |= is_opaque(fd.as_fd(), &self.format).unwrap_or(false);
            }
            shown.push(layer.join(path.iter().collect::<PathBuf>()));
            if hides {
                break;
            }
        }
        shown.reverse();
        Ok(shown)
    }

    /// What shows of the layers below and of what has been written so far.
    pub fn view(&self, layer: &Path) -> Result<Union, FileError> {
        let mut dirs = self.lower_dirs.clone();
        dirs.push(layer.to_owned());
        Ok(Union::open(&dirs, &self.format)?)
    }

    pub(super) fn format(&self) -> &Format {
        &self.format
    }
}

impl TargetDir {
    /// Rooted, for messages.
    pub fn shown(&self, name: Option<&OsStr>) -> String {
        show(&name.map_or_else(|| self.path.clone(), |name| self.path.join(name)))
    }

    /// Whether names that the layer itself does not have are looked up in the layers below.
    pub fn shows_lower(&self) -> bool {
        self.lower_shows
    }

    fn upper_fd(&self) -> Option<BorrowedFd<'_>> {
        self.upper.get().map(AsFd::as_fd)
    }

    fn below(&self, target: &Target, name: &OsStr) -> Result<Option<Node>, Errno> {
        if !self.lower_shows {
            return Ok(None);
        }
        target.lower.lookup(self.path.join(name)).map_err(|error| errno_of(&error))
    }

    /// What `name` is here.
    pub fn lookup(&self, target: &Target, name: &OsStr) -> Result<Option<Found>, Errno> {
        if let Some(upper) = self.upper_fd()
            && let Some(meta) = meta_at(upper, name, &target.format)?
        {
            return Ok((!is_whiteout(&meta)).then_some(Found::Upper(meta)));
        }
        Ok(self.below(target, name)?.map(Found::Lower))
    }

    /// All names in the folder, sorted.
    pub fn entries(&self, target: &Target) -> Result<Vec<(OsString, Found)>, Errno> {
        let mut found = std::collections::BTreeMap::new();
        if self.lower_shows {
            for node in target.lower.read_dir(&self.path).map_err(|error| errno_of(&error))? {
                found.insert(node.name().to_owned(), Found::Lower(node));
            }
        }
        if let Some(upper) = self.upper_fd() {
            for name in names(upper)? {
                let Some(meta) = meta_at(upper, name.as_slice(), &target.format)? else { continue };
                let name = OsString::from_vec(name);
                if is_whiteout(&meta) {
                    found.remove(&name);
                } else {
                    found.insert(name, Found::Upper(meta));
                }
            }
        }
        Ok(found.into_iter().collect())
    }

    /// Facts about the folder itself.
    pub fn meta(&self, target: &Target) -> Result<Meta, Errno> {
        match (self.upper_fd(), &self.parent) {
            (Some(upper), _) => meta_of(upper, &target.format),
            (None, _) => {
                let node = target.lower.lookup(&self.path).map_err(|error| errno_of(&error))?;
                node.map(|node| node.meta).ok_or(Errno::NOENT)
            }
        }
    }

    /// Target of the link `name`, which is `found`.
    pub fn read_link(&self, name: &OsStr, found: &Found) -> Result<Vec<u8>, Errno> {
        match (found, self.upper_fd()) {
            (Found::Lower(node), _) => node
                .read_link()
                .map(|path| path.into_os_string().into_vec())
                .map_err(|error| errno_of(&error)),
            (Found::Upper(_), Some(upper)) => {
                rustix::fs::readlinkat(upper, name, Vec::new()).map(std::ffi::CString::into_bytes)
            }
            (Found::Upper(_), None) => Err(Errno::NOENT),
        }
    }

    /// The subfolder `name`, which is `found`.
    pub fn open_dir(
        self: &Arc<Self>,
        target: &Target,
        name: &OsStr,
        found: &Found,
    ) -> Result<Arc<TargetDir>, Errno> {
        let upper = OnceLock::new();
        let mut lower_shows = self.lower_shows;
        if let (Found::Upper(_), Some(parent)) = (found, self.upper_fd()) {
            let fd = rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty())?;
            lower_shows = lower_shows
                && !is_opaque(fd.as_fd(), &target.format).unwrap_or(false)
                && self.below(target, name)?.is_some_and(|node| node.meta.is_dir());
            upper.set(fd).expect("it is new");
        }
        Ok(Arc::new(TargetDir {
            parent: Some((self.clone(), name.to_owned())),
            path: self.path.join(name),
            upper,
            making: Mutex::default(),
            lower_shows,
        }))
    }

    /// The folder in the layer itself, made there with the attributes of the one below if need be.
    pub fn upper(&self, target: &Target) -> Result<BorrowedFd<'_>, Errno> {
        if let Some(fd) = self.upper_fd() {
            return Ok(fd);
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fd) = self.upper_fd() {
            return Ok(fd);
        }
        let (parent, name) = self.parent.as_ref().expect("the root is there from the start");
        let parent = parent.upper(target)?;
        let node = target.lower.lookup(&self.path).map_err(|error| errno_of(&error))?.ok_or(Errno::NOENT)?;
        rustix::fs::mkdirat(parent, name.as_os_str(), Mode::RWXU)?;
        let fd = rustix::fs::openat(parent, name.as_os_str(), DIR_FLAGS, Mode::empty())?;
        set_attributes(fd.as_fd(), &Attributes::of(&node.meta), &target.format)?;
        set_what_is_possible(parent, name.as_bytes(), &list_xattrs(node.holder(), node.name().as_bytes())?);
        Ok(self.upper.get_or_init(|| fd).as_fd())
    }

    /// Makes `name` free in the layer itself and says whether something below has to be hidden from what comes there.
    fn vacate(&self, target: &Target, name: &OsStr) -> Result<(BorrowedFd<'_>, bool), Errno> {
        let upper = self.upper(target)?;
        let below = self.below(target, name)?.is_some();
        if below && meta_at(upper, name, &target.format)?.is_some_and(|meta| is_whiteout(&meta)) {
            rustix::fs::unlinkat(upper, name, AtFlags::empty())?;
        }
        Ok((upper, below))
    }

    /// Makes the folder `name`, which must not be there, readable by its owner only: its attributes come when its
    /// content is complete.
    pub fn mkdir(self: &Arc<Self>, target: &Target, name: &OsStr) -> Result<Arc<TargetDir>, Errno> {
        let (parent, below) = self.vacate(target, name)?;
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        let fd = rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty())?;
        if below {
            set_opaque(fd.as_fd(), &target.format).map_err(|error| errno_of_io(&error))?;
        }
        let upper = OnceLock::new();
        upper.set(fd).expect("it is new");
        Ok(Arc::new(TargetDir {
            parent: Some((self.clone(), name.to_owned())),
            path: self.path.join(name),
            upper,
            making: Mutex::default(),
            lower_shows: false,
        }))
    }

    /// Creates the regular file `name`, which must not be there.
    pub fn create_file(&self, target: &Target, name: &OsStr) -> Result<OwnedFd, Errno> {
        let (parent, _) = self.vacate(target, name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
    }

    /// Makes the symbolic link `name`, which must not be there.
    pub fn symlink(&self, target: &Target, name: &OsStr, to: &[u8]) -> Result<(), Errno> {
        let (parent, _) = self.vacate(target, name)?;
        rustix::fs::symlinkat(to, parent, name)
    }

    /// Makes the device, fifo or socket `name` like `meta`. Sockets become empty files: nobody listens on a copy.
    pub fn mknod(&self, target: &Target, name: &OsStr, meta: &Meta) -> Result<(), Errno> {
        let (parent, _) = self.vacate(target, name)?;
        let kind = match meta.kind {
            FileKind::CharDevice => rustix::fs::FileType::CharacterDevice,
            FileKind::BlockDevice => rustix::fs::FileType::BlockDevice,
            FileKind::Fifo => rustix::fs::FileType::Fifo,
            _ => rustix::fs::FileType::RegularFile,
        };
        let device = rustix::fs::makedev(meta.rdev_major, meta.rdev_minor);
        rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(meta.mode & 0o777), device)
    }

    /// Makes `name`, which must not be there, another name of `from_name` in `from`.
    pub fn link(
        &self,
        target: &Target,
        name: &OsStr,
        from: BorrowedFd<'_>,
        from_name: &OsStr,
    ) -> Result<(), Errno> {
        let (parent, _) = self.vacate(target, name)?;
        rustix::fs::linkat(from, from_name, parent, name, AtFlags::empty())
    }

    /// Removes `name` with everything below it, if it is there.
    pub fn remove(&self, target: &Target, name: &OsStr) -> Result<(), Errno> {
        let Some(found) = self.lookup(target, name)? else { return Ok(()) };
        let upper = self.upper(target)?;
        if let Found::Upper(meta) = &found {
            remove_tree(upper, name.as_bytes(), meta)?;
        }
        if self.below(target, name)?.is_some() {
            make_whiteout(upper, name).map_err(|error| errno_of_io(&error))?;
        }
        Ok(())
    }

    /// Gives `name`, which the layer itself has, its attributes; a link's own where it is one.
    pub fn set_attributes_of(
        &self,
        target: &Target,
        name: &OsStr,
        kind: FileKind,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Errno> {
        let parent = self.upper(target)?;
        chown_at(parent, name, kind, attributes, &target.format)?;
        if kind != FileKind::Symlink {
            rustix::fs::chmodat(
                parent,
                name,
                Mode::from_raw_mode(attributes.mode & 0o7777),
                AtFlags::empty(),
            )?;
        }
        set_what_is_possible(parent, name.as_bytes(), xattrs);
        if let Some(mtime) = attributes.mtime {
            rustix::fs::utimensat(parent, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Gives the folder itself its attributes.
    pub fn set_own_attributes(
        &self,
        target: &Target,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Errno> {
        let fd = self.upper(target)?;
        set_what_is_possible(fd, b"", xattrs);
        set_attributes(fd, attributes, &target.format)
    }

    /// Sets the folder's time.
    pub fn set_own_mtime(&self, target: &Target, mtime: (i64, u32)) -> Result<(), Errno> {
        rustix::fs::futimens(self.upper(target)?, &timestamps(mtime))
    }

    /// Sets the folder's mode.
    pub fn set_own_mode(&self, target: &Target, mode: u32) -> Result<(), Errno> {
        rustix::fs::fchmod(self.upper(target)?, Mode::from_raw_mode(mode & 0o7777))
    }
}

impl Attributes {
    /// Those of an existing file.
    pub fn of(meta: &Meta) -> Attributes {
        Attributes {
            uid: meta.uid,
            gid: meta.gid,
            mode: meta.mode,
            mtime: Some((meta.mtime_s, meta.mtime_ns)),
        }
    }
}

/// Gives an open file or folder its attributes.
pub fn set_attributes(fd: BorrowedFd<'_>, attributes: &Attributes, format: &Format) -> Result<(), Errno> {
    if format.owner_xattr {
        keep_owner(&xattr_path(fd, b""), attributes)?;
    } else {
        rustix::fs::fchown(fd, Some(uid(attributes.uid)), Some(gid(attributes.gid)))?;
    }
    // After the owner: changing it takes the set-id bits away.
    rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode & 0o7777))?;
    if let Some(mtime) = attributes.mtime {
        rustix::fs::futimens(fd, &timestamps(mtime))?;
    }
    Ok(())
}

/// Sets the modification time of an open file.
pub fn set_mtime(fd: impl AsFd, mtime: (i64, u32)) -> Result<(), Errno> {
    rustix::fs::futimens(fd, &timestamps(mtime))
}

fn chown_at(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileKind,
    attributes: &Attributes,
    format: &Format,
) -> Result<(), Errno> {
    if !format.owner_xattr {
        let (user, group) = (uid(attributes.uid), gid(attributes.gid));
        return rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW);
    }
    // Only files and folders take attributes of this class.
    if matches!(kind, FileKind::File | FileKind::Dir) {
        keep_owner(&xattr_path(parent, name.as_bytes()), attributes)?;
    }
    Ok(())
}

fn keep_owner(path: &[u8], attributes: &Attributes) -> Result<(), Errno> {
    if (attributes.uid, attributes.gid) == (0, 0) {
        return match rustix::fs::removexattr(path, OWNER_XATTR) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno),
        };
    }
    let value = format!("{}:{}", attributes.uid, attributes.gid);
    rustix::fs::lsetxattr(path, OWNER_XATTR, value.as_bytes(), XattrFlags::empty())
}

fn uid(id: u32) -> rustix::fs::Uid {
    rustix::fs::Uid::from_raw(id)
}

fn gid(id: u32) -> rustix::fs::Gid {
    rustix::fs::Gid::from_raw(id)
}

fn timestamps((secs, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: secs, tv_nsec: nanos.into() },
    }
}

/// Removes what `name` in `parent` is, folders from the inside out.
fn remove_tree(parent: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<(), Errno> {
    if !meta.is_dir() {
        return rustix::fs::unlinkat(parent, name, AtFlags::empty());
    }
    // Handles of the folders being emptied; depth is bounded by the path length limit of what could be created.
    let open =
        |parent: BorrowedFd<'_>, name: &[u8]| rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty());
    let top = open(parent, name)?;
    let waiting = names(top.as_fd())?;
    let mut stack = vec![(name.to_vec(), top, waiting)];
    while let Some((_, dir, waiting)) = stack.last_mut() {
        if let Some(child) = waiting.pop() {
            match rustix::fs::unlinkat(&*dir, child.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let fd = open(dir.as_fd(), &child)?;
                    let below = names(fd.as_fd())?;
                    stack.push((child, fd, below));
                }
                Err(errno) => return Err(errno),
            }
            continue;
        }
        let (done, _, _) = stack.pop().expect("the loop has it");
        let holder = stack.last().map_or(parent, |(_, dir, _)| dir.as_fd());
        rustix::fs::unlinkat(holder, done.as_slice(), AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let mut components: Vec<_> = parts.map(<[u8]>::to_vec).collect();
    components.reverse();
    components
}

fn text(done: &[OsString], name: &OsStr) -> String {
    let mut path: PathBuf = done.iter().collect();
    path.push(name);
    show(&path)
}

/// A path inside the ref, as messages have it.
pub(super) fn show(path: &Path) -> String {
    format!("/{}", path.to_string_lossy())
}

pub(super) fn errno_of(error: &kiln_layer::Error) -> Errno {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return errno_of_io(io);
        }
        source = error.source();
    }
    Errno::IO
}

pub(super) fn errno_of_io(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
