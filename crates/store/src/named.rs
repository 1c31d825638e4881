//! Layers that are kept under a key and change: cache mounts, local contexts, checked out repositories.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use kiln_layer::union::Union;
use rusqlite::params;
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::id::LayerId;
use crate::layers::{LayerHandle, LayerMeta, STATE_READY, STATE_RETAINED};
use crate::mount::{MountSource, Mounted};
use crate::reference::Ref;
use crate::store::{Store, now_ms};

/// Who may use a kept layer together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each its own: one that is free, else a new one.
    Private,
    /// One after the other.
    Locked,
}

/// Which kept layer is wanted.
#[derive(Clone, Debug)]
pub struct NamedSpec {
    /// Its key. Those who want the same must give the same key.
    pub key: String,
    /// What it lies on top of. The same key on another base is another layer.
    pub base: Ref,
    /// Who may use it at the same time.
    pub sharing: Sharing,
    /// What people see of a new one.
    pub meta: LayerMeta,
}

/// A kept layer in use; given back when the last clone goes.
#[derive(Clone)]
pub struct NamedLayer {
    held: Arc<Held>,
}

struct Held {
    store: Store,
    /// `None` only while it is dropped.
    handle: Option<LayerHandle>,
    base: Ref,
    fs: PathBuf,
    key: String,
    fresh: bool,
    /// Where it is mounted on top of its base, once somebody asked for that: all who hold it write through one mount.
    mounted: Mutex<Option<Mounted>>,
}

/// Who holds what.
#[derive(Default)]
pub(crate) struct Holds {
    /// By layer; alive while in use.
    held: Mutex<HashMap<i64, Hold>>,
    freed: Notify,
}

struct Hold {
    key: String,
    sharing: Sharing,
    holder: Weak<Held>,
}

impl Store {
    /// Takes the layer kept under a key, or makes one. Waits only where sharing is [`Sharing::Locked`].
    ///
    /// A layer that was [frozen](NamedLayer::freeze) and whose frozen handle still lives is left alone: a fresh one
    /// takes its place.
    pub async fn named(&self, spec: &NamedSpec) -> Result<NamedLayer> {
        loop {
            let freed = self.inner.holds.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(named) = self.try_named(spec)? {
                return Ok(named);
            }
            freed.await;
        }
    }

    fn try_named(&self, spec: &NamedSpec) -> Result<Option<NamedLayer>> {
        let key = format!("{}\n{}", spec.base.row().unwrap_or(0), spec.key);
        let mut held = self.inner.holds.held.lock().unwrap_or_else(|poison| poison.into_inner());
        if spec.sharing == Sharing::Shared
            && let Some(hold) = held.values().find(|hold| hold.key == key && hold.sharing == Sharing::Shared)
        {
            // One that is just being given back is waited for.
            return Ok(hold.holder.upgrade().map(|held| NamedLayer { held }));
        }
        if spec.sharing == Sharing::Locked && held.values().any(|hold| hold.key == key) {
            return Ok(None);
        }
        for row in self.kept_rows(&key)? {
            if held.contains_key(&row) {
                continue;
            }
            if let Some(named) = self.take_kept(row, &key, spec)? {
                held.insert(row, Hold::new(&named, &key, spec.sharing));
                return Ok(Some(named));
            }
        }
        let named = self.make_kept(&key, spec)?;
        held.insert(named.handle().row(), Hold::new(&named, &key, spec.sharing));
        Ok(Some(named))
    }

    /// Lets go of the layers whose keys are wanted no more: whoever asks for such a key next gets a fresh layer. Those who hold
    /// one keep it.
    ///
    /// # Errors
    /// What the database says.
    pub fn forget_named(&self, unwanted: impl Fn(&str) -> bool) -> Result<()> {
        let unwanted = |key: &str| key.split_once('\n').is_some_and(|(_, key)| unwanted(key));
        let mut held = self.inner.holds.held.lock().unwrap_or_else(|poison| poison.into_inner());
        for hold in held.values_mut().filter(|hold| unwanted(&hold.key)) {
            // A key that nobody asks for.
            hold.key.clear();
        }
        let kept: Vec<(i64, String)> = self.inner.db.read("list kept layers", |db| {
            db.prepare_cached("SELECT id, retained FROM layers WHERE retained IS NOT NULL")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        for (row, _) in kept.iter().filter(|(_, key)| unwanted(key)) {
            self.let_go(*row)?;
        }
        Ok(())
    }

    /// A kept layer becomes one like others, as it is now.
    fn let_go(&self, row: i64) -> Result<()> {
        self.inner.db.write("let go of a kept layer", |db| {
            db.prepare_cached("UPDATE layers SET retained = NULL, state = ? WHERE id = ?")?
                .execute(params![STATE_READY, row])?;
            Ok(())
        })?;
        if let Some(live) = self.inner.live().get(row) {
            live.state.store(STATE_READY, std::sync::atomic::Ordering::Release);
        }
        self.inner.sync.layer_made();
        Ok(())
    }

    fn kept_rows(&self, key: &str) -> Result<Vec<i64>> {
        self.inner.db.read("look up a kept layer", |db| {
            db.prepare_cached("SELECT id FROM layers WHERE retained = ? ORDER BY used_ms DESC, id DESC")?
                .query_map([key], |row| row.get(0))?
                .collect()
        })
    }

    /// Takes a layer that nobody holds; one that is still looked at as it is now is left to those who do.
    fn take_kept(&self, row: i64, key: &str, spec: &NamedSpec) -> Result<Option<NamedLayer>> {
        let looked_at = self.inner.live().holds(row);
        let is_base = self.inner.db.read("look up a kept layer", |db| {
            db.prepare_cached(
                "WITH RECURSIVE lists (id) AS (
                     SELECT id FROM refs WHERE layer = ?
                     UNION SELECT refs.id FROM lists JOIN refs ON refs.parent = lists.id
                 )
                 SELECT EXISTS (SELECT 1 FROM lists JOIN layers ON layers.base = lists.id)",
            )?
            .query_row([row], |found| found.get::<_, bool>(0))
        })?;
        if looked_at || is_base {
            self.let_go(row)?;
            return Ok(None);
        }
        // Results that were what it is until now are that no longer.
        self.inner.db.write("take a kept layer", |db| {
            crate::recover::release_records(db, row)?;
            db.prepare_cached("DELETE FROM refs WHERE layer = ?")?.execute([row])?;
            db.prepare_cached(
                "UPDATE layers SET bytes = NULL, inodes = NULL, diff_id = NULL, synced = 0 WHERE id = ?",
            )?
            .execute([row])?;
            db.prepare_cached("DELETE FROM layer_blobs WHERE layer = ?")?.execute([row])?;
            Ok(())
        })?;
        let Some(handle) = self.layer_of_row(row)? else { return Ok(None) };
        handle.touch();
        Ok(Some(self.hold(handle, key, &spec.base, false)))
    }

    fn make_kept(&self, key: &str, spec: &NamedSpec) -> Result<NamedLayer> {
        let id = LayerId::random();
        self.inner.make_layer_dirs(&id)?;
        let now = now_ms();
        let row = self.inner.db.write("record a kept layer", |db| {
            db.prepare_cached(
                "INSERT INTO layers (name, state, base, created_ms, used_ms, uses, description, record_type, retained)
                 VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?)",
            )?
            .execute(params![
                id.as_str(),
                STATE_RETAINED,
                spec.base.row(),
                spec.meta.created_ms.unwrap_or(now),
                now,
                spec.meta.description,
                spec.meta.record_type.as_str(),
                key,
            ])?;
            Ok(db.last_insert_rowid())
        })?;
        let handle = self.new_handle(row, id, spec.base.row(), STATE_RETAINED, None);
        Ok(self.hold(handle, key, &spec.base, true))
    }

    fn hold(&self, handle: LayerHandle, key: &str, base: &Ref, fresh: bool) -> NamedLayer {
        let fs = self.inner.layer_fs(handle.id());
        let held = Held {
            store: self.clone(),
            handle: Some(handle),
            base: base.clone(),
            fs,
            key: key.to_owned(),
            fresh,
            mounted: Mutex::default(),
        };
        NamedLayer { held: Arc::new(held) }
    }
}

impl Hold {
    fn new(named: &NamedLayer, key: &str, sharing: Sharing) -> Self {
        Self { key: key.to_owned(), sharing, holder: Arc::downgrade(&named.held) }
    }
}

impl NamedLayer {
    /// Its name.
    pub fn id(&self) -> &LayerId {
        self.handle().id()
    }

    /// Its directory on the host.
    pub fn dir(&self) -> &Path {
        &self.held.fs
    }

    /// Whether it was made just now.
    pub fn is_fresh(&self) -> bool {
        self.held.fresh
    }

    /// What it lies on top of.
    pub fn base(&self) -> &Ref {
        &self.held.base
    }

    /// What to mount to write into it through its base's view. It holds as long as this does.
    pub fn mount_source(&self) -> Result<MountSource> {
        let Held { store, base, fs, .. } = &*self.held;
        if base.is_scratch() {
            return Ok(MountSource::writable_dir(fs.clone(), base));
        }
        let mut mounted = self.held.mounted.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(mounted) = &*mounted {
            return Ok(MountSource::writable_dir(mounted.path().to_owned(), base));
        }
        let source = store.writable_source(base, self.id(), true)?;
        if source.directory().is_some() {
            return Ok(source);
        }
        let mount = mounted.insert(store.mount_somewhere(&source)?);
        Ok(MountSource::writable_dir(mount.path().to_owned(), base))
    }

    /// The merged view of the base and this, as it is now.
    pub fn union(&self) -> Result<Union> {
        let mut dirs: Vec<PathBuf> =
            self.held.base.layers().iter().map(LayerHandle::dir).collect::<Result<_>>()?;
        dirs.push(self.held.fs.clone());
        Union::open(&dirs, self.held.store.format()).map_err(Error::layer(self.id()))
    }

    /// The layer's handle, to keep values with it. While a handle lives outside of this, the layer counts as looked
    /// at and is not given out again to be changed; see [`Self::freeze`].
    pub fn handle(&self) -> &LayerHandle {
        self.held.handle.as_ref().expect("there until it is dropped")
    }

    /// Gives up changing it, and gives it as it is now, on top of its base. As long as the result (or a record of it)
    /// is held, nobody changes it: whoever takes the key then gets a fresh layer. Otherwise the next taker goes on
    /// with this one, and what was recorded of the result is forgotten.
    pub fn freeze(self) -> Result<Ref> {
        let (store, handle, base) = (self.held.store.clone(), self.handle().clone(), self.held.base.clone());
        store.append(&base, &handle)
    }
}

impl fmt::Debug for NamedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedLayer")
            .field("id", self.id())
            .field("key", &self.held.key)
            .finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // First the mount: the next one must not find the directories in use.
        drop(self.mounted.get_mut().unwrap_or_else(|poison| poison.into_inner()).take());
        // Then the handle: whoever takes the layer next must not find it looked at.
        let Some(row) = self.handle.take().map(|handle| handle.row()) else { return };
        let holds = &self.store.inner.holds;
        holds.held.lock().unwrap_or_else(|poison| poison.into_inner()).remove(&row);
        holds.freed.notify_waiters();
    }
}

impl fmt::Debug for Holds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Holds")
    }
}
