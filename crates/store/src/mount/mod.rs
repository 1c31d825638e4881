//! Layers as file systems.

mod blocks;
mod flat;
mod overlay;
mod probe;

use std::collections::HashSet;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_layer::changes::write_copy;
use kiln_layer::join::write_join;
use kiln_layer::overlay::XattrSpace;
use kiln_layer::tree::CopyHow;
use kiln_layer::union::Union;

pub(crate) use flat::{Flat, Flats};
pub(crate) use probe::overlay_works;

use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::layers::LayerHandle;
use crate::reference::Ref;
use crate::store::Store;

/// What to mount with overlayfs.
#[derive(Clone, Debug)]
pub struct OverlaySpec {
    /// The lower directories, the topmost first; never empty.
    pub lower: Vec<PathBuf>,
    /// Where changes go, and the directory that overlayfs needs beside it; `None`: read-only.
    pub upper: Option<(PathBuf, PathBuf)>,
    /// Overlayfs keeps its attributes in `user.` (mount option `userxattr`).
    pub userxattr: bool,
    /// Changes need not survive a power loss while mounted (mount option `volatile`): `fsync` costs nothing.
    pub volatile: bool,
}

/// Something that can be mounted. It keeps the layers that it is made of.
#[derive(Clone, Debug)]
pub struct MountSource {
    kind: Kind,
    _keep: Keep,
}

#[derive(Clone, Debug)]
struct Keep {
    _reference: Ref,
    _flat: Vec<Arc<Flat>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Overlay(OverlaySpec),
    /// A directory of its own (without overlayfs).
    Dir {
        path: PathBuf,
        read_only: bool,
    },
}

/// The directories that show a ref together, for those who look into them without a mount. It keeps the layers that they are made of.
#[derive(Debug)]
pub struct Directories {
    dirs_bottom_up: Vec<PathBuf>,
    _keep: Keep,
}

impl Directories {
    /// The directories, the lowest first. Of a long list they are fewer than its layers.
    pub fn dirs_bottom_up(&self) -> &[PathBuf] {
        &self.dirs_bottom_up
    }
}

/// A mounted file system that is attached nowhere yet; it goes with its last user.
#[derive(Debug)]
pub struct Mount {
    fd: OwnedFd,
    source: MountSource,
}

/// A mount attached at a path of the store; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    _mount: Mount,
}

impl MountSource {
    /// A directory that holds a view of `reference` to write into.
    pub(crate) fn writable_dir(path: PathBuf, reference: &Ref) -> MountSource {
        let keep = Keep { _reference: reference.clone(), _flat: Vec::new() };
        MountSource { kind: Kind::Dir { path, read_only: false }, _keep: keep }
    }

    /// What to mount with overlayfs; `None` where it is a plain directory.
    pub fn overlay(&self) -> Option<&OverlaySpec> {
        match &self.kind {
            Kind::Overlay(spec) => Some(spec),
            Kind::Dir { .. } => None,
        }
    }

    /// The directory to bind, and whether read-only; `None` where it is an overlay.
    pub fn directory(&self) -> Option<(&Path, bool)> {
        match &self.kind {
            Kind::Overlay(_) => None,
            Kind::Dir { path, read_only } => Some((path, *read_only)),
        }
    }

    /// Mounts it, attached nowhere.
    pub fn mount(&self) -> Result<Mount> {
        let fd = match &self.kind {
            Kind::Overlay(spec) => overlay::mount(spec)?,
            Kind::Dir { path, .. } => overlay::clone_dir(path)?,
        };
        Ok(Mount { fd, source: self.clone() })
    }
}

impl Mount {
    /// The mount's root, to be attached in whatever mount namespace.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What was mounted.
    pub fn source(&self) -> &MountSource {
        &self.source
    }

    /// Attaches it at an existing directory of this mount namespace. It stays there until someone unmounts it.
    pub fn attach(&self, target: &Path) -> Result<()> {
        overlay::attach(self.fd.as_fd(), target)
    }
}

impl Mounted {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let detached = rustix::mount::unmount(&self.path, rustix::mount::UnmountFlags::DETACH);
        if let Err(error) = detached {
            tracing::warn!(path = %self.path.display(), %error, "failed to unmount");
            return;
        }
        // Empty now; what stays is removed at the next start.
        let _ = std::fs::remove_dir(&self.path);
    }
}

impl Store {
    /// A ref as a read-only file system. Its layers must be unpacked.
    pub fn readable_source(&self, reference: &Ref) -> Result<MountSource> {
        if !self.inner.overlay {
            let flat = self.inner.copies.get(self, (reference.row().unwrap_or(0), 0), |path| {
                write_copy(&self.union(reference)?, path, CopyHow::Copy).map_err(Error::layer(path.display()))
            })?;
            let kind = Kind::Dir { path: flat.path().to_owned(), read_only: true };
            return Ok(MountSource {
                kind,
                _keep: Keep { _reference: reference.clone(), _flat: vec![flat] },
            });
        }
        let (mut lower, flat) = self.lower_dirs(reference)?;
        // Overlayfs wants two lower directories where there is no upper one.
        while lower.len() < 2 {
            lower.push(self.inner.root.join("empty"));
        }
        let spec = OverlaySpec { lower, upper: None, userxattr: self.userxattr(), volatile: false };
        Ok(MountSource {
            kind: Kind::Overlay(spec),
            _keep: Keep { _reference: reference.clone(), _flat: flat },
        })
    }

    /// The directories of a ref. Its layers must be unpacked.
    pub fn directories(&self, reference: &Ref) -> Result<Directories> {
        let (mut dirs, flat) = self.lower_dirs(reference)?;
        dirs.reverse();
        let keep = Keep { _reference: reference.clone(), _flat: flat };
        Ok(Directories { dirs_bottom_up: dirs, _keep: keep })
    }

    /// A layer's directory as the writable top of `parent`.
    pub(crate) fn writable_source(&self, parent: &Ref, id: &LayerId, retained: bool) -> Result<MountSource> {
        let dir = self.inner.layer_dir(id);
        if !self.inner.overlay {
            return self.native_source(parent, &dir, retained);
        }
        let (mut lower, flat) = self.lower_dirs(parent)?;
        if lower.is_empty() {
            lower.push(self.inner.root.join("empty"));
        }
        let work = dir.join("work");
        // What an earlier mount left there would refuse a new one.
        self.inner.trash(&work)?;
        std::fs::create_dir(&work).map_err(Error::io("create", &work))?;
        let upper = Some((dir.join("fs"), work));
        let spec = OverlaySpec { lower, upper, userxattr: self.userxattr(), volatile: !retained };
        Ok(MountSource { kind: Kind::Overlay(spec), _keep: Keep { _reference: parent.clone(), _flat: flat } })
    }

    /// Without overlayfs: a full copy to write into.
    fn native_source(&self, parent: &Ref, dir: &Path, retained: bool) -> Result<MountSource> {
        // A retained layer lives in its copy; a new one's changes are found by comparing when it is committed.
        let path = dir.join(if retained { "fs" } else { "merged" });
        let fresh = std::fs::create_dir(&path).is_ok();
        let empty = || std::fs::read_dir(&path).map(|mut entries| entries.next().is_none());
        if fresh || retained && empty().map_err(Error::io("read directory", &path))? {
            write_copy(&self.union(parent)?, &path, CopyHow::Copy).map_err(Error::layer(path.display()))?;
        }
        if !retained && fresh {
            // What is written directly into the layer before it is first mounted.
            let fs = dir.join("fs");
            let above = Union::open(&[&fs], self.format()).map_err(Error::layer(fs.display()))?;
            if above.read_dir("").map_err(Error::layer(fs.display()))?.is_empty() {
                return Ok(MountSource {
                    kind: Kind::Dir { path, read_only: false },
                    _keep: Keep { _reference: parent.clone(), _flat: Vec::new() },
                });
            }
            let mut dirs: Vec<PathBuf> =
                parent.layers().iter().map(LayerHandle::dir).collect::<Result<_>>()?;
            dirs.push(fs.clone());
            let whole = Union::open(&dirs, self.format()).map_err(Error::layer(fs.display()))?;
            self.inner.trash(&path)?;
            std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
            write_copy(&whole, &path, CopyHow::Copy).map_err(Error::layer(fs.display()))?;
            // The copy has it all; the layer is found again by comparing.
            self.inner.trash(&fs)?;
            std::fs::create_dir(&fs).map_err(Error::io("create", &fs))?;
        }
        Ok(MountSource {
            kind: Kind::Dir { path, read_only: false },
            _keep: Keep { _reference: parent.clone(), _flat: Vec::new() },
        })
    }

    /// Mounts a ref read-only at a fresh path of the store.
    pub fn mount_read_only(&self, reference: &Ref) -> Result<Mounted> {
        self.mount_somewhere(&self.readable_source(reference)?)
    }

    /// Mounts something at a fresh path of the store.
    pub fn mount_somewhere(&self, source: &MountSource) -> Result<Mounted> {
        let path = self.inner.root.join("mnt").join(LayerId::random().as_str());
        std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let mounted = source.mount().and_then(|mount| mount.attach(&path).map(|()| mount));
        match mounted {
            Ok(mount) => Ok(Mounted { path, _mount: mount }),
            Err(error) => {
                let _ = std::fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    fn userxattr(&self) -> bool {
        self.format().xattrs == XattrSpace::User
    }

    /// The directories of a ref, the topmost first, those of long lists joined.
    fn lower_dirs(&self, reference: &Ref) -> Result<(Vec<PathBuf>, Vec<Arc<Flat>>)> {
        let list = List { layers: reference.layers(), rows: reference.rows() };
        let mut dirs = Vec::new();
        let mut keep = Vec::new();
        for block in blocks::blocks(reference.depth()) {
            dirs.push(self.block_dir(&list, &block, &mut keep)?);
        }
        dirs.reverse();
        // What a list has twice, as when it was merged with a part of itself, shows nothing the second time; overlayfs refuses it.
        let mut seen = HashSet::new();
        dirs.retain(|dir| seen.insert(dir.clone()));
        Ok((dirs, keep))
    }

    /// The directory of a block, which stays as long as what is put into `keep`.
    fn block_dir(&self, list: &List, block: &Range<usize>, keep: &mut Vec<Arc<Flat>>) -> Result<PathBuf> {
        if block.len() == 1 {
            return list.layers[block.start].dir();
        }
        let key = (list.rows[block.end - 1], block.start);
        let flat = match self.inner.joins.find(key) {
            Some(flat) => flat,
            None => {
                let mut keep = Vec::new();
                let dirs = blocks::parts(block)
                    .map(|part| self.block_dir(list, &part, &mut keep))
                    .collect::<Result<Vec<_>>>()?;
                self.inner.joins.get(self, key, |path| {
                    write_join(&dirs, path, self.format()).map_err(Error::layer(path.display()))
                })?
            }
        };
        let path = flat.path().to_owned();
        keep.push(flat);
        Ok(path)
    }
}

/// A ref's layers, the lowest first, with the row of the ref that ends with each.
struct List {
    layers: Vec<LayerHandle>,
    rows: Vec<i64>,
}
