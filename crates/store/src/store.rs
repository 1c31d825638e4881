//! The store itself: opening, and what its parts share.

use std::fs::{File, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_layer::overlay::{Format, XattrSpace};
use kiln_layer::tree::CopyHow;
use kiln_layer::union::Union;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use rustix::fs::{FlockOperation, IFlags};

use crate::content::Content;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::flights::Flights;
use crate::history::History;
use crate::id::{LayerId, RefId};
use crate::images::Images;
use crate::keys::Keys;
use crate::layers::{BlobOptions, CommitInfo, LayerHandle, LayerInner, LayerMeta, Live};
use crate::mount::{self, Flats};
use crate::named::Holds;
use crate::options::{Backend, StoreOptions};
use crate::pool::Pool;
use crate::records::Records;
use crate::recover;
use crate::reference::{Node, Ref};
use crate::sites::Sites;
use crate::sync::Syncer;
use crate::values::Values;

/// An open state directory. Cheap to clone; the last clone (and the last handle from it) closes it.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// How many copies of whole lists are kept that nobody uses at the moment.
const COPIES_KEPT_MAX: usize = 4;

/// How many joined blocks: those of a few long lists. They are links, and go when something is pruned.
const JOINS_KEPT_MAX: usize = 64;

pub(crate) struct Inner {
    pub root: PathBuf,
    pub scratch: Arc<Path>,
    pub options: StoreOptions,
    pub db: Arc<Db>,
    pub content: Content,
    pub images: Images,
    pub keys: Keys,
    pub records: Records,
    pub values: Values,
    pub history: History,
    pub pool: Pool,
    pub unpack_pool: Pool,
    pub overlay: bool,
    pub live: Mutex<Live<LayerInner>>,
    pub live_refs: Mutex<Live<Node>>,
    pub unpacking: Flights<i64>,
    pub archiving: Flights<(i64, BlobOptions)>,
    /// Whole lists as directories of their own, where there is no overlayfs.
    pub copies: Flats,
    /// Blocks of long lists.
    pub joins: Flats,
    pub holds: Holds,
    /// `None` where it does not matter where a layer is made.
    pub sites: Option<Arc<Sites>>,
    pub sync: Arc<Syncer>,
    _lock: File,
}

impl Store {
    /// Opens (or makes) a state directory, alone: a second process is refused. Removes what a crash left half-done.
    pub fn open(root: &Path, options: StoreOptions) -> Result<Self> {
        if !root.exists() {
            // Files of images have any mode: nobody else gets near them.
            state_dir(root, 0o700)?;
        }
        let root = root.canonicalize().map_err(Error::io("find", root))?;
        let lock = lock(&root)?;
        for name in ["layers", "flat", "mnt", "scratch", "trash"] {
            state_dir(&root.join(name), 0o700)?;
        }
        state_dir(&root.join("empty"), 0o755)?;
        spread(&root.join("layers"));
        let content = Content::open(&root)?;
        let images = Images::new(content.clone());
        images.prepare()?;
        let db = Arc::new(Db::open(&root)?);
        recover::recover(&root, &db, &content)?;
        let overlay = match options.backend {
            Backend::Native => false,
            backend => match mount::overlay_works(&root, options.format.xattrs == XattrSpace::User)? {
                Ok(()) => true,
                Err(error) if backend == Backend::Overlay => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "overlayfs cannot be used here, layers are copied instead");
                    false
                }
            },
        };
        let sites = Sites::open(root.join("sites"), &root).map(Arc::new);
        let sync = Syncer::start(&root, Arc::clone(&db), sites.clone(), options.sync_delay)?;
        let inner = Arc::new_cyclic(|weak: &Weak<Inner>| Inner {
            keys: Keys { db: Arc::clone(&db) },
            records: Records { db: Arc::clone(&db), store: weak.clone() },
            values: Values { db: Arc::clone(&db), store: weak.clone() },
            history: History { db: Arc::clone(&db) },
            pool: Pool::new(options.pool_width),
            // These also wait for the network: enough of them that the processors never do.
            unpack_pool: Pool::new(options.pool_width),
            scratch: root.join("scratch").into(),
            root,
            options,
            db,
            content,
            images,
            overlay,
            live: Mutex::default(),
            live_refs: Mutex::default(),
            unpacking: Flights::default(),
            archiving: Flights::default(),
            copies: Flats::new(COPIES_KEPT_MAX),
            joins: Flats::new(JOINS_KEPT_MAX),
            holds: Holds::default(),
            sites,
            sync,
            _lock: lock,
        });
        Ok(Self { inner })
    }

    pub(crate) fn from_inner(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// The state directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// A folder on the disk of the state for files without a name: what is too long for memory while something is made. Empty
    /// after each start.
    pub fn scratch_dir(&self) -> Arc<Path> {
        Arc::clone(&self.inner.scratch)
    }

    /// The blobs.
    pub fn content(&self) -> &Content {
        &self.inner.content
    }

    /// The named images.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// The solver's cache keys.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// The kept results.
    pub fn records(&self) -> &Records {
        &self.inner.records
    }

    /// What others keep about layers and refs.
    pub fn values(&self) -> &Values {
        &self.inner.values
    }

    /// The builds that were.
    pub fn history(&self) -> &History {
        &self.inner.history
    }

    /// Where blocking work runs.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    pub(crate) fn unpack_pool(&self) -> &Pool {
        &self.inner.unpack_pool
    }

    /// How layer directories are written.
    pub fn format(&self) -> &Format {
        &self.inner.options.format
    }

    /// How it was opened.
    pub fn options(&self) -> &StoreOptions {
        &self.inner.options
    }

    /// Whether layers are mounted with overlayfs (else copied).
    pub fn uses_overlay(&self) -> bool {
        self.inner.overlay
    }

    /// The list of `parent`'s layers and `layer` on top.
    pub fn append(&self, parent: &Ref, layer: &LayerHandle) -> Result<Ref> {
        let (parent_row, layer_row) = (parent.row(), layer.row());
        let row = match self.inner.db.read("look up a ref", |db| find_ref(db, parent_row, layer_row))? {
            Some(row) => row,
            None => self.inner.db.write("record a ref", |db| match find_ref(db, parent_row, layer_row)? {
                Some(row) => Ok(row),
                None => insert_ref(db, parent_row, layer_row),
            })?,
        };
        Ok(self.inner.extend(parent, layer.clone(), row))
    }

    /// The lists one on top of the other: nothing is copied. A layer that is in the list already is not repeated
    /// while the beginnings are the same.
    pub fn merge(&self, refs: &[Ref]) -> Result<Ref> {
        let mut merged = Ref::scratch();
        for reference in refs {
            if reference.starts_with(&merged) {
                merged = reference.clone();
                continue;
            }
            for layer in reference.layers() {
                merged = self.append(&merged, &layer)?;
            }
        }
        Ok(merged)
    }

    /// What is in `upper` and not in `lower`: the layers above, where `upper` begins with all of `lower`; else a new
    /// layer, found by comparing, for which both must be unpacked. Blocking in that case.
    pub fn diff(&self, lower: &Ref, upper: &Ref, meta: LayerMeta) -> Result<Ref> {
        if lower.is_scratch() {
            return Ok(upper.clone());
        }
        if upper.starts_with(lower) {
            let mut above = Ref::scratch();
            for layer in upper.layers().iter().skip(lower.depth()) {
                above = self.append(&above, layer)?;
            }
            return Ok(above);
        }
        // Kept apart from either side: on top of scratch.
        let layer = self.new_layer(&Ref::scratch(), meta)?;
        let (lower, upper) = (self.union(lower)?, self.union(upper)?);
        kiln_layer::changes::write_diff(&lower, &upper, layer.dir(), CopyHow::Link)
            .map_err(Error::layer(layer.id()))?;
        layer.commit(CommitInfo::default())
    }

    /// A list by its name; `None` if a layer of it is gone.
    pub fn get_ref(&self, id: RefId) -> Result<Option<Ref>> {
        // Up to a list that somebody holds, the topmost layer first.
        let found = self.inner.db.read("look up a ref", |db| {
            let mut list = db.prepare_cached("SELECT parent, layer FROM refs WHERE id = ?")?;
            let (mut above, mut next) = (Vec::new(), Some(id.0));
            while let Some(row) = next {
                if let Some(held) = self.inner.live_refs().get(row) {
                    return Ok(Some((Ref::of(held), above)));
                }
                let found = list.query_row([row], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                let Some((parent, layer)) = found else { return Ok(None) };
                above.push((row, layer));
                next = parent;
            }
            Ok(Some((Ref::scratch(), above)))
        })?;
        let Some((mut reference, above)) = found else { return Ok(None) };
        for (row, layer) in above.into_iter().rev() {
            let Some(layer) = self.layer_of_row(layer)? else { return Ok(None) };
            reference = self.inner.extend(&reference, layer, row);
        }
        Ok(Some(reference))
    }

    /// The merged view of a list's directories, without a mount. All layers must be unpacked.
    pub fn union(&self, reference: &Ref) -> Result<Union> {
        let dirs: Vec<PathBuf> = reference.layers().iter().map(LayerHandle::dir).collect::<Result<_>>()?;
        Union::open(&dirs, self.format()).map_err(Error::layer(format!("{reference:?}")))
    }

    /// Writes what is still gathered in memory and makes all of it durable. Blocking.
    pub fn flush(&self) -> Result<()> {
        self.inner.sync.flush()
    }
}

impl Inner {
    pub(crate) fn live(&self) -> MutexGuard<'_, Live<LayerInner>> {
        self.live.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    pub(crate) fn live_refs(&self) -> MutexGuard<'_, Live<Node>> {
        self.live_refs.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    /// The list of `parent`'s layers and `layer`, which has this row: the one that somebody holds, if there is one.
    pub(crate) fn extend(&self, parent: &Ref, layer: LayerHandle, row: i64) -> Ref {
        let mut live = self.live_refs();
        if let Some(held) = live.get(row) {
            return Ref::of(held);
        }
        let reference = Ref::extend(parent, layer, row);
        if let Some(node) = reference.node() {
            live.insert(row, node);
        }
        reference
    }

    pub(crate) fn layer_dir(&self, id: &LayerId) -> PathBuf {
        self.below(&["layers", id.as_str()])
    }

    /// A layer's content.
    pub(crate) fn layer_fs(&self, id: &LayerId) -> PathBuf {
        self.below(&["layers", id.as_str(), "fs"])
    }

    /// A path in the state directory: many are made, so all of it at once.
    fn below(&self, names: &[&str]) -> PathBuf {
        let length = names.iter().fold(self.root.as_os_str().len(), |sum, name| sum + 1 + name.len());
        let mut path = PathBuf::with_capacity(length);
        path.push(&self.root);
        path.extend(names);
        path
    }

    /// Makes a layer's directory and the one for its content, which is given back.
    pub(crate) fn make_layer_dirs(&self, id: &LayerId) -> Result<PathBuf> {
        // The inner one is the root of what is built.
        let (mode, fs_mode) = (0o700, 0o755);
        let (dir, fs) = (self.layer_dir(id), self.layer_fs(id));
        if !self.sites.as_ref().is_some_and(|sites| sites.make(&dir, mode, fs_mode)) {
            for (path, mode) in [(&dir, mode), (&fs, fs_mode)] {
                std::fs::DirBuilder::new().mode(mode).create(path).map_err(Error::io("create", path))?;
            }
        }
        Ok(fs)
    }

    /// Removes a directory: out of the way at once, its content in the background. What is not there is no error.
    pub(crate) fn trash(&self, path: &Path) -> Result<()> {
        let target = self.root.join("trash").join(LayerId::random().as_str());
        match std::fs::rename(path, &target) {
            Ok(()) => {
                self.sync.removed(target);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", path)(error)),
        }
    }

    pub(crate) fn touch(&self, row: i64, now_ms: i64) {
        self.sync.touch(row, now_ms);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.copies.clear();
        self.joins.clear();
        self.sync.stop();
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.root).finish_non_exhaustive()
    }
}

fn find_ref(db: &Connection, parent: Option<i64>, layer: i64) -> rusqlite::Result<Option<i64>> {
    db.prepare_cached("SELECT id FROM refs WHERE parent IS ? AND layer = ?")?
        .query_row(params![parent, layer], |row| row.get(0))
        .optional()
}

/// Records a list that is not there yet.
pub(crate) fn insert_ref(db: &Transaction<'_>, parent: Option<i64>, layer: i64) -> rusqlite::Result<i64> {
    db.prepare_cached("INSERT INTO refs (parent, layer) VALUES (?, ?)")?.execute(params![parent, layer])?;
    Ok(db.last_insert_rowid())
}

/// Makes a directory of the state unless it is there; its mode does not depend on what this process gives new files.
pub(crate) fn state_dir(path: &Path, mode: u32) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(Error::io("create", path))?;
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::io("change mode of", path))
}

/// Tells ext4 that what is in this directory has nothing to do with each other: each layer then begins in a part of the
/// disk of its own, where there is room, and not where another one was removed a moment ago. Other file systems know
/// nothing of it.
pub(crate) fn spread(dir: &Path) {
    let Ok(dir) = File::open(dir) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&dir)
        && !flags.contains(IFlags::TOPDIR)
    {
        // Only a hint.
        let _ = rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR);
    }
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .mode(0o600)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked { path: root.to_owned() }),
        Err(error) => Err(Error::io("lock", path)(error)),
    }
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
