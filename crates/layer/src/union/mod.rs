//! The merged, read-only view of a list of layer directories, without a mount.
//!
//! Paths are relative to the union's root (an empty path is the root itself; a leading `/` and `.` are ignored) and
//! resolved one name at a time beneath directory handles, so nothing in a layer leads outside.

mod dir;
mod node;
mod resolve;
mod walk;

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use node::{Entry, Node};
pub(crate) use node::{get_xattr, list_xattrs};
pub use resolve::Resolved;
pub use walk::Walk;

use crate::error::{Error, Result};
use crate::overlay::Format;
use dir::{Cache, Dir};

/// A merged view. Cheap to clone; clones share open handles.
#[derive(Clone, Debug)]
pub struct Union {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: Arc<Dir>,
    format: Format,
    layers: usize,
    cache: Mutex<Cache>,
}

impl Union {
    /// Opens the view of these layer directories, the lowest first.
    pub fn open<P: AsRef<Path>>(dirs_bottom_up: &[P], format: &Format) -> Result<Self> {
        let root = Dir::open_roots(dirs_bottom_up)?;
        Ok(Self {
            shared: Arc::new(Shared {
                root: Arc::new(root),
                format: *format,
                layers: dirs_bottom_up.len(),
                cache: Mutex::default(),
            }),
        })
    }

    /// The view of nothing: an empty root.
    pub fn empty() -> Self {
        Self::open::<&Path>(&[], &Format::default()).expect("no layer, nothing to open")
    }

    /// How many layers it merges.
    pub fn layer_count(&self) -> usize {
        self.shared.layers
    }

    /// How its layers are written.
    pub fn format(&self) -> &Format {
        &self.shared.format
    }

    /// The root itself; `None` for the view of nothing.
    pub fn root(&self) -> Result<Option<Node>> {
        Node::root(&self.shared.root, self.format())
    }

    /// `lstat`: what is at exactly this path. No symlink is followed anywhere: a path through one finds nothing.
    pub fn lookup(&self, path: impl AsRef<Path>) -> Result<Option<Node>> {
        let path = clean(path.as_ref())?;
        let Some(name) = path.file_name() else { return self.root() };
        let parent = path.parent().unwrap_or(Path::new(""));
        let Some(dir) = self.dir(parent)? else { return Ok(None) };
        Node::child(&dir, name, self.format())
    }

    /// Opens the file at exactly this path for reading; `None` where nothing is. Cheaper than looking it up first.
    pub fn open_file(&self, path: impl AsRef<Path>) -> Result<Option<std::fs::File>> {
        let path = clean(path.as_ref())?;
        let parent = path.parent().unwrap_or(Path::new(""));
        if let (Some(name), Some(dir)) = (path.file_name(), self.dir(parent)?)
            && let Some(file) = dir.open_file(name)
        {
            return Ok(Some(file));
        }
        self.lookup(&path)?.map(|node| node.open()).transpose()
    }

    /// The merged content of a directory, sorted by name. What is no directory is an error.
    pub fn read_dir(&self, path: impl AsRef<Path>) -> Result<Vec<Node>> {
        self.list(path)?.iter().map(|entry| entry.look(self.format())).collect()
    }

    /// The same, with nothing but what the listing of the directory tells.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<Entry>> {
        let path = clean(path.as_ref())?;
        let dir =
            self.dir(&path)?.ok_or_else(|| Error::io("read directory", &path)(rustix::io::Errno::NOTDIR))?;
        dir.entries()
    }

    /// Everything at and beneath a path, parents first, in the order of names. Empty if nothing is there.
    pub fn walk(&self, path: impl AsRef<Path>) -> Result<Walk> {
        Ok(Walk::new(self.clone(), self.lookup(path)?))
    }

    /// Follows symlinks as a process whose root this is would do; see [`Resolved`].
    pub fn resolve(&self, path: impl AsRef<Path>, follow_last: bool) -> Result<Resolved> {
        resolve::resolve(self, path.as_ref(), follow_last)
    }

    /// An open directory; `None` where there is none. `path` must be clean.
    fn dir(&self, path: &Path) -> Result<Option<Arc<Dir>>> {
        if path.as_os_str().is_empty() {
            return Ok(Some(Arc::clone(&self.shared.root)));
        }
        if let Some(dir) = self.cache().get(path) {
            return Ok(Some(dir));
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let name = path.file_name().expect("a clean path that is not empty has a last name");
        let Some(parent) = self.dir(parent)? else { return Ok(None) };
        let Some(dir) = parent.open_child(name, self.format())? else { return Ok(None) };
        let dir = Arc::new(dir);
        self.cache().put(&dir);
        Ok(Some(dir))
    }

    fn child_dir(&self, parent: &Arc<Dir>, name: &OsStr) -> Result<Option<Arc<Dir>>> {
        Ok(parent.open_child(name, self.format())?.map(Arc::new))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.shared.cache.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

/// Drops `.`, a leading `/` and doubled slashes. `..` has no meaning without resolving and is an error.
fn clean(path: &Path) -> Result<PathBuf> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir => {
                return Err(Error::Resolve {
                    path: path.to_owned(),
                    reason: "`..` in a path that follows no links",
                });
            }
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests;
