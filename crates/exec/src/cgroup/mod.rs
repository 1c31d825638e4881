//! A cgroup a step: made before, removed after.
//!
//! In the unified hierarchy (v2, also where it stands beside the old ones) a step is *born* in its cgroup, and device access
//! is a BPF program on the directory above all steps. In the old hierarchies (v1) the step moves itself; since each move and
//! each directory costs, a hybrid machine uses only those controllers that a limit needs.
//!
//! `<parent>/kiln/<instance>/{sandbox,insecure}/<step>` is the path everywhere; `<instance>` is this state directory's, so
//! that a new daemon can remove what a dead one left without touching another's.

mod devices;
mod hierarchy;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::{Error, Resources, Result};
use hierarchy::Hierarchies;

/// A dead process may keep its cgroup busy for a moment.
const REMOVE_TRIES: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(2);

/// Where steps' cgroups are made.
#[derive(Debug)]
pub struct Cgroups {
    hierarchies: Hierarchies,
    instance: String,
    default_parent: String,
    /// Remembers parents that were used besides the default one, for the next daemon's sweep.
    parents_file: PathBuf,
    /// Directories above steps that are ready, and whether their device program is in place.
    ready: Mutex<HashMap<PathBuf, bool>>,
    /// Groups that were used, as paths in every hierarchy.
    used: Mutex<BTreeSet<String>>,
}

/// The cgroup of one step. Dropping it removes it in the background; [`StepCgroup::remove`] waits.
#[derive(Debug)]
pub struct StepCgroup {
    unified: Option<(PathBuf, OwnedFd)>,
    /// Directories in old hierarchies, with their open `cgroup.procs`.
    old: Vec<(String, PathBuf, OwnedFd)>,
    removed: bool,
}

impl Cgroups {
    /// Finds the hierarchies and removes what a dead daemon with the same state directory left in them.
    pub fn open(state_dir: &Path, default_parent: &str, rootless: bool) -> Arc<Self> {
        let cgroups = Self {
            hierarchies: Hierarchies::find(rootless),
            instance: instance_name(state_dir),
            default_parent: default_parent.to_owned(),
            parents_file: state_dir.join("cgroup-parents"),
            ready: Mutex::default(),
            used: Mutex::default(),
        };
        cgroups.sweep();
        Arc::new(cgroups)
    }

    /// Only the unified hierarchy is there: containers get a cgroup namespace.
    pub fn is_unified_only(&self) -> bool {
        self.hierarchies.is_unified_only()
    }

    /// Path of a step's cgroup inside each hierarchy.
    pub fn step_path(&self, parent: &str, id: &str, insecure: bool) -> String {
        let parent = if parent.is_empty() { &self.default_parent } else { parent };
        format!("{}/{}", self.group_path(parent, insecure), id)
    }

    fn group_path(&self, parent: &str, insecure: bool) -> String {
        let group = if insecure { "insecure" } else { "sandbox" };
        let parent = hierarchy::clean_parent(parent);
        format!("{parent}/kiln/{}/{group}", self.instance)
    }

    /// Makes the cgroup of a step; `None` where the machine lets us have none.
    pub fn create(
        &self,
        parent: &str,
        id: &str,
        insecure: bool,
        limits: &Resources,
    ) -> Result<Option<StepCgroup>> {
        let custom = !parent.is_empty() && parent != self.default_parent;
        let parent = if parent.is_empty() { &self.default_parent } else { parent };
        let group = self.group_path(parent, insecure);
        if custom {
            self.remember_parent(parent);
        }
        self.used.lock().unwrap_or_else(|e| e.into_inner()).insert(group.clone());
        let mut cgroup = StepCgroup { unified: None, old: Vec::new(), removed: false };
        let mut devices_restricted = insecure;
        if let Some(unified) = self.hierarchies.unified() {
            let above = unified.join(group.trim_start_matches('/'));
            match self.prepare_group(&above, insecure) {
                Ok(restricted) => devices_restricted |= restricted,
                // A plain user without delegation, or a read-only mount in a container.
                Err(error) if is_refused(&error) => {
                    tracing::debug!(path = %above.display(), %error, "no cgroup for steps");
                    return self.without_cgroup(limits);
                }
                Err(source) => return Err(Error::Cgroup { path: above, source }),
            }
            let path = above.join(id);
            make_dir(&path).map_err(|source| Error::Cgroup { path: path.clone(), source })?;
            let fd =
                rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|e| Error::Cgroup { path: path.clone(), source: e.into() })?;
            cgroup.unified = Some((path, fd));
        }
        for old in self.hierarchies.needed(limits, insecure, devices_restricted)? {
            let path = old.join(group.trim_start_matches('/')).join(id);
            let failed = |source| Error::Cgroup { path: path.clone(), source };
            match old.make(&path) {
                Err(error) if is_refused(&error) && cgroup.unified.is_none() => {
                    return self.without_cgroup(limits);
                }
                result => result.map_err(failed)?,
            }
            if old.has("devices") {
                devices::write_rules(&path, insecure).map_err(failed)?;
            }
            let procs =
                rustix::fs::open(path.join("cgroup.procs"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            cgroup.old.push((old.name(), path.clone(), procs.map_err(|e| failed(e.into()))?));
        }
        self.hierarchies.limit(&cgroup, limits)?;
        Ok(Some(cgroup))
    }

    fn without_cgroup(&self, limits: &Resources) -> Result<Option<StepCgroup>> {
        match hierarchy::controllers_for(limits).first() {
            Some(controller) => Err(Error::NoController { controller }),
            None => Ok(None),
        }
    }

    /// Makes the directory above steps; tells whether devices are restricted in it.
    fn prepare_group(&self, path: &Path, insecure: bool) -> io::Result<bool> {
        let mut ready = self.ready.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(restricted) = ready.get(path)
            && path.exists()
        {
            return Ok(*restricted);
        }
        fs::create_dir_all(path)?;
        let restricted = !insecure
            && devices::attach(path).inspect_err(|e| tracing::debug!(%e, "no device program")).is_ok();
        ready.insert(path.to_owned(), restricted);
        Ok(restricted)
    }

    fn remember_parent(&self, parent: &str) {
        let known = fs::read_to_string(&self.parents_file).unwrap_or_default();
        if !known.lines().any(|line| line == parent)
            && let Err(error) = fs::write(&self.parents_file, format!("{known}{parent}\n"))
        {
            tracing::warn!(%error, path = %self.parents_file.display(), "cannot note a cgroup parent");
        }
    }

    fn sweep(&self) {
        let known = fs::read_to_string(&self.parents_file).unwrap_or_default();
        for parent in known.lines().chain([self.default_parent.as_str()]) {
            let path = format!("{}/kiln/{}", hierarchy::clean_parent(parent), self.instance);
            for root in self.hierarchies.roots() {
                remove_tree(&root.join(path.trim_start_matches('/')));
            }
        }
    }
}

impl Drop for Cgroups {
    /// Leaves no empty directories; one that another daemon uses is not empty.
    fn drop(&mut self) {
        for group in self.used.get_mut().unwrap_or_else(|e| e.into_inner()).iter() {
            for root in self.hierarchies.roots() {
                let path = root.join(group.trim_start_matches('/'));
                // The group, the instance and `kiln`.
                for dir in path.ancestors().take(3) {
                    if fs::remove_dir(dir).is_err() && dir.exists() {
                        break;
                    }
                }
            }
        }
    }
}

impl StepCgroup {
    /// Directory in the unified hierarchy, to be born in.
    pub fn unified_fd(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|(_, fd)| fd.as_fd())
    }

    pub fn unified_path(&self) -> Option<&Path> {
        self.unified.as_ref().map(|(path, _)| path.as_path())
    }

    /// Name of the hierarchy, directory and open `cgroup.procs`; writing `0` to that moves the writer.
    pub fn old(&self) -> impl Iterator<Item = (&str, &Path, BorrowedFd<'_>)> {
        self.old.iter().map(|(name, path, fd)| (name.as_str(), path.as_path(), fd.as_fd()))
    }

    /// The kernel has killed something in it for want of memory.
    pub fn had_oom_kill(&self) -> bool {
        let count = |path: PathBuf| {
            let text = fs::read_to_string(path).ok()?;
            text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok())
        };
        let unified = self.unified.as_ref().and_then(|(path, _)| count(path.join("memory.events")));
        let old = self.old.iter().find(|(name, ..)| name.contains("memory"));
        let old = old.and_then(|(_, path, _)| count(path.join("memory.oom_control")));
        unified.or(old).unwrap_or(0) > 0
    }

    /// Kills what is left in it and removes it.
    pub async fn remove(mut self) {
        let mut paths = self.take_paths();
        for _ in 0..REMOVE_TRIES {
            paths.retain(|path| !remove_once(path));
            if paths.is_empty() {
                return;
            }
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
        tracing::warn!(?paths, "cgroup of a step stays");
    }

    fn take_paths(&mut self) -> Vec<PathBuf> {
        self.removed = true;
        self.unified.iter().map(|(p, _)| p).chain(self.old.iter().map(|(_, p, _)| p)).cloned().collect()
    }
}

impl Drop for StepCgroup {
    fn drop(&mut self) {
        if !self.removed {
            for path in self.take_paths() {
                remove_tree(&path);
            }
        }
    }
}

fn remove_once(path: &Path) -> bool {
    match fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(_) => {
            // Something lives in it, or has made cgroups below it.
            remove_tree(path);
            !path.exists()
        }
    }
}

/// Kills everything in a cgroup and below it, and removes the directories, as far as that goes at once.
fn remove_tree(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    if fs::write(path.join("cgroup.kill"), "1").is_err() {
        for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) {
                // It may be gone already.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..REMOVE_TRIES {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(REMOVE_PAUSE),
            _ => return,
        }
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(path),
        result => result,
    }
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// A name that is always the same for a state directory: FNV-1a of its path.
fn instance_name(state_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let path = state_dir.canonicalize().unwrap_or_else(|_| state_dir.to_owned());
    let hash = path.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}
