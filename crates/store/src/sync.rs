//! What is done a little later: syncing new layers to disk, writing down uses, removing directories.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_layer::tree::remove_all_telling;
use rusqlite::params;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::sites::{Removed, Sites};

#[derive(Debug)]
pub(crate) struct Syncer {
    root: File,
    db: Arc<Db>,
    sites: Option<Arc<Sites>>,
    state: Mutex<State>,
    wake: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Layers were made since the last sync; since when.
    unsynced: Option<Instant>,
    /// When each layer was last used, and how often since written down.
    touched: HashMap<i64, (i64, i64)>,
    touched_since: Option<Instant>,
    trash: Vec<PathBuf>,
    stop: bool,
}

impl Syncer {
    pub(crate) fn start(
        root: &Path,
        db: Arc<Db>,
        sites: Option<Arc<Sites>>,
        delay: Duration,
    ) -> Result<Arc<Self>> {
        let file = File::open(root).map_err(Error::io("open", root))?;
        let this = Arc::new(Self {
            root: file,
            db,
            sites,
            state: Mutex::default(),
            wake: Condvar::new(),
            thread: Mutex::default(),
        });
        let worker = Arc::clone(&this);
        let thread = std::thread::Builder::new()
            .name("kiln-store-sync".into())
            .spawn(move || worker.run(delay))
            .map_err(Error::io("start a thread for", root))?;
        *this.thread.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(thread);
        for left in
            std::fs::read_dir(root.join("trash")).map_err(Error::io("read directory", root))?.flatten()
        {
            this.removed(left.path());
        }
        Ok(this)
    }

    /// A layer was committed.
    pub(crate) fn layer_made(&self) {
        self.state().unsynced.get_or_insert_with(Instant::now);
        self.wake.notify_one();
    }

    /// A directory is in the trash.
    pub(crate) fn removed(&self, path: PathBuf) {
        self.state().trash.push(path);
        self.wake.notify_one();
    }

    /// A layer was used.
    pub(crate) fn touch(&self, row: i64, now_ms: i64) {
        let mut state = self.state();
        let (last, count) = state.touched.entry(row).or_default();
        *last = now_ms.max(*last);
        *count += 1;
        state.touched_since.get_or_insert_with(Instant::now);
        self.wake.notify_one();
    }

    /// Does now what would be done later.
    pub(crate) fn flush(&self) -> Result<()> {
        self.flush_uses()?;
        self.sync()
    }

    /// Ends the thread when all is done.
    pub(crate) fn stop(&self) {
        self.state().stop = true;
        self.wake.notify_all();
        let thread = self.thread.lock().unwrap_or_else(|poison| poison.into_inner()).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in it was printed there.
            let _ = thread.join();
        }
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "last state was not written: some cache will be missing after a power loss");
        }
    }

    fn run(&self, delay: Duration) {
        loop {
            let (sync, uses);
            let trash = {
                let mut state = self.state();
                loop {
                    let due =
                        |since: Option<Instant>| since.map(|since| delay.saturating_sub(since.elapsed()));
                    let (sync_in, uses_in) = (due(state.unsynced), due(state.touched_since));
                    let now = (sync_in == Some(Duration::ZERO), uses_in == Some(Duration::ZERO));
                    if now.0 || now.1 || state.stop || !state.trash.is_empty() {
                        (sync, uses) = now;
                        break;
                    }
                    let wait = [sync_in, uses_in].into_iter().flatten().min();
                    state = match wait {
                        Some(wait) => {
                            self.wake.wait_timeout(state, wait).unwrap_or_else(|poison| poison.into_inner()).0
                        }
                        None => self.wake.wait(state).unwrap_or_else(|poison| poison.into_inner()),
                    };
                }
                if state.stop {
                    // The next start removes what is in the trash.
                    return;
                }
                std::mem::take(&mut state.trash)
            };
            if uses && let Err(error) = self.flush_uses() {
                tracing::warn!(%error, "failed to write down uses");
            }
            if sync && let Err(error) = self.sync() {
                tracing::warn!(%error, "failed to sync new layers to disk");
            }
            for path in trash {
                self.remove(&path);
            }
        }
    }

    /// Writes down uses gathered in memory.
    pub(crate) fn flush_uses(&self) -> Result<()> {
        let touched = {
            let mut state = self.state();
            state.touched_since = None;
            std::mem::take(&mut state.touched)
        };
        if touched.is_empty() {
            return Ok(());
        }
        self.db.write("write down uses", |db| {
            let mut update =
                db.prepare_cached("UPDATE layers SET used_ms = ?, uses = uses + ? WHERE id = ?")?;
            for (row, (last, count)) in touched {
                update.execute(params![last, count, row])?;
            }
            Ok(())
        })
    }

    /// Makes all layers committed so far durable, then says so: in this order.
    fn sync(&self) -> Result<()> {
        if self.state().unsynced.take().is_none() {
            return Ok(());
        }
        let rows: Vec<i64> = self.db.read("look up new layers", |db| {
            db.prepare_cached("SELECT id FROM layers WHERE synced = 0")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        rustix::fs::syncfs(&self.root).map_err(Error::io("sync", "the state directory"))?;
        self.db.write("mark layers as synced", |db| {
            // Retained layers change again.
            let mut update = db.prepare_cached("UPDATE layers SET synced = 1 WHERE id = ? AND state != 0")?;
            for row in rows {
                update.execute([row])?;
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
        let mut inodes = Removed::default();
        let removed = File::open(parent)
            .and_then(|dir| Ok(remove_all_telling(dir.as_fd(), name, &mut |inode| inodes.add(inode))?));
        if let Some(sites) = &self.sites {
            sites.removed(inodes);
        }
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "failed to remove; the next start tries again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}
