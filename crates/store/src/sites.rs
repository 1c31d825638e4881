//! Where on the disk a new layer begins, on ext4 without a journal.
//!
//! There an inode is given out again only minutes after its file was removed, and until then each new file near it looks at it: a
//! layer that lands where one was pruned takes ten to twenty times as long. Nor can it be left to ext4 to keep away from there: of the
//! parts of the disk it prefers the one with the fewest directories, which is the one that was emptied a moment ago.
//!
//! So the store keeps some empty directories far apart from each other, the *sites*. A layer's directory is made in one of them and then
//! moved to its place: what is made in it later lies near where it was made. Which site: the one near which the fewest inodes were
//! removed lately, and of equal ones the one that was not used for longest. What others removed there shows in the time that the first
//! directory takes: if that is long, the next site is tried. All of it is a hint; where it fails, the layer is made where it belongs.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// Inodes of one region: as many as a group of ext4 has, unless made otherwise.
const REGION: u64 = 8192;

/// How many sites are kept at most.
const SITES_MAX: usize = 64;

/// How many directories are made to find them.
const CANDIDATES_MAX: usize = 256;

/// Two sites are at least this many regions apart.
const APART: u64 = 8;

/// How many regions from a site on count as near it: a layer of some ten thousand files.
const REACH: u64 = 12;

/// ext4's own time: a minute after the removal, and five more until that is written to disk.
const REMEMBERED: Duration = Duration::from_secs(360);

/// A directory takes 15 to 25 microseconds where nothing was removed, and 240 to 400 where a layer of some thousand files was (ext4 on a
/// virtual disk, 2-core EPYC).
const SLOW: Duration = Duration::from_micros(80);

/// How many inodes are taken to be removed where a directory took so long.
const SLOW_INODES: u64 = 1000;

/// Sites that are tried for one layer.
const TRIES_MAX: usize = 8;

/// The sites of a state directory.
#[derive(Debug)]
pub(crate) struct Sites {
    dir: PathBuf,
    /// From here on a directory took long.
    slow: Duration,
    found: OnceLock<Vec<Site>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Site {
    path: PathBuf,
    region: u64,
}

#[derive(Debug, Default)]
struct State {
    /// What was removed, by region, and when the last of it was.
    removed: BTreeMap<u64, (u64, Instant)>,
    /// When each site was last used, in uses.
    used: Vec<u64>,
    uses: u64,
}

/// How many inodes were removed, by region.
#[derive(Debug, Default)]
pub(crate) struct Removed(BTreeMap<u64, u64>);

impl Removed {
    /// The inode of a file that was removed.
    pub(crate) fn add(&mut self, inode: u64) {
        *self.0.entry(inode / REGION).or_default() += 1;
    }
}

impl Sites {
    /// Sites in `dir` below the state directory, where they are of use.
    pub(crate) fn open(dir: PathBuf, root: &Path) -> Option<Self> {
        keeps_removed_inodes(root).then(|| Self::at(dir))
    }

    fn at(dir: PathBuf) -> Self {
        Self { dir, slow: SLOW, found: OnceLock::new(), state: Mutex::default() }
    }

    /// Makes the directory `place`, and `fs` in it, by way of a site. `false`: nothing was made.
    pub(crate) fn make(&self, place: &Path, mode: u32, fs_mode: u32) -> bool {
        let Some(name) = place.file_name() else { return false };
        let sites = self.found.get_or_init(|| find(&self.dir));
        for tries in 1..=TRIES_MAX {
            let Some(chosen) = self.state().choose(sites, Instant::now()) else { return false };
            let site = &sites[chosen];
            let path = site.path.join(name);
            let made = make_pair(&path, mode, fs_mode);
            let last = made.is_err() || tries == TRIES_MAX;
            if last || made.as_ref().is_ok_and(|took| *took < self.slow) {
                let moved = made.is_ok() && std::fs::rename(&path, place).is_ok();
                if !moved {
                    remove_pair(&path);
                }
                return moved;
            }
            self.removed(Removed([(site.region, SLOW_INODES)].into()));
            remove_pair(&path);
        }
        false
    }

    /// These were removed from the disk just now.
    pub(crate) fn removed(&self, removed: Removed) {
        self.state().take_in(removed, Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl State {
    fn choose(&mut self, sites: &[Site], now: Instant) -> Option<usize> {
        self.used.resize(sites.len(), 0);
        let rank = |at: &usize| (self.removed_near(sites[*at].region, now), self.used[*at]);
        let chosen = (0..sites.len()).min_by_key(rank)?;
        self.uses += 1;
        self.used[chosen] = self.uses;
        Some(chosen)
    }

    fn take_in(&mut self, removed: Removed, now: Instant) {
        self.removed.retain(|_, (_, when)| now - *when < REMEMBERED);
        for (region, count) in removed.0 {
            let known = self.removed.entry(region).or_insert((0, now));
            *known = (known.0 + count, now);
        }
    }

    fn removed_near(&self, region: u64, now: Instant) -> u64 {
        let near = self.removed.range(region..region + REACH);
        near.filter(|(_, (_, when))| now - *when < REMEMBERED).map(|(_, (count, _))| count).sum()
    }
}

/// How long the inner one took: the outer one may have had to read what ext4 knows of that part of the disk.
fn make_pair(path: &Path, mode: u32, fs_mode: u32) -> std::io::Result<Duration> {
    DirBuilder::new().mode(mode).create(path)?;
    let begun = Instant::now();
    DirBuilder::new().mode(fs_mode).create(path.join("fs"))?;
    Ok(begun.elapsed())
}

/// What cannot be removed is, at the next start.
fn remove_pair(path: &Path) {
    let _ = std::fs::remove_dir(path.join("fs"));
    let _ = std::fs::remove_dir(path);
}

/// The sites that are there, or new ones. What a crash left in them goes.
fn find(dir: &Path) -> Vec<Site> {
    let mut sites = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let path = entry.path();
        for left in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            // Nothing else is made in it before it is moved.
            remove_pair(&left.path());
        }
        sites.push(Site { path, region: meta.ino() / REGION });
    }
    if sites.is_empty() {
        sites = make_sites(dir).unwrap_or_else(|error| {
            tracing::warn!(dir = %dir.display(), %error, "no places were found for layers; they are made where ext4 likes");
            Vec::new()
        });
    }
    sites
}

/// ext4 puts each directory in here into a part of the disk with few directories; those that are too near others stay until
/// all are made, so that the next ones come elsewhere.
fn make_sites(dir: &Path) -> std::io::Result<Vec<Site>> {
    crate::store::state_dir(dir, 0o700).map_err(std::io::Error::other)?;
    crate::store::spread(dir);
    let mut sites: Vec<Site> = Vec::new();
    let mut too_near = Vec::new();
    for attempt in 0..CANDIDATES_MAX {
        let path = dir.join(attempt.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        let region = path.symlink_metadata()?.ino() / REGION;
        if sites.iter().all(|site| site.region.abs_diff(region) >= APART) {
            sites.push(Site { path, region });
        } else {
            too_near.push(path);
        }
        if sites.len() == SITES_MAX {
            break;
        }
    }
    for path in too_near {
        std::fs::remove_dir(path)?;
    }
    Ok(sites)
}

/// Whether the disk is ext4 without a journal, as far as the system says.
fn keeps_removed_inodes(root: &Path) -> bool {
    journal_task(root).is_some_and(|task| task.trim() == "<none>")
}

/// What the kernel says of the process that writes the journal of the file system there; `None` if it is not ext4.
fn journal_task(root: &Path) -> Option<String> {
    let device = root.metadata().ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    let name = device.file_name()?.to_str()?;
    std::fs::read_to_string(format!("/sys/fs/ext4/{name}/journal_task")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(regions: &[u64]) -> Vec<Site> {
        regions.iter().map(|&region| Site { path: PathBuf::new(), region }).collect()
    }

    fn removed(regions: &[(u64, u64)]) -> Removed {
        let mut removed = Removed::default();
        for &(region, count) in regions {
            (0..count).for_each(|at| removed.add(region * REGION + at));
        }
        removed
    }

    #[test]
    fn each_site_has_its_turn() {
        let (sites, mut state, now) = (sites(&[0, 100, 200]), State::default(), Instant::now());
        let chosen: Vec<_> = (0..7).map(|_| state.choose(&sites, now)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0].map(Some));
        assert_eq!(State::default().choose(&[], now), None);
    }

    #[test]
    fn nothing_begins_near_what_was_removed_until_that_is_over() {
        let (sites, mut state, now) = (sites(&[0, 100, 200]), State::default(), Instant::now());
        state.take_in(removed(&[(5, 700), (99, 800), (211, 10)]), now);
        let chosen: Vec<_> = (0..3).map(|_| state.choose(&sites, now)).collect();
        assert_eq!(chosen, [1, 1, 1].map(Some), "99 is before it, the others have something near");
        state.take_in(removed(&[(100, 800)]), now);
        assert_eq!(state.choose(&sites, now), Some(2), "where least was removed");
        let later = now + REMEMBERED;
        assert_eq!(state.choose(&sites, later), Some(0));
        state.take_in(Removed::default(), later);
        assert!(state.removed.is_empty(), "forgotten");
    }

    #[test]
    fn a_directory_comes_to_its_place_and_what_a_crash_leaves_of_one_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = |dir: &Path| {
            let all = std::fs::read_dir(dir).expect("reads").map(|entry| entry.expect("reads").path());
            all.collect::<std::collections::BTreeSet<_>>()
        };
        let at = dir.path().join("sites");
        let layer = dir.path().join("layer");
        assert!(Sites::at(at.clone()).make(&layer, 0o700, 0o755));
        assert_eq!(names(&layer), [layer.join("fs")].into());
        assert_eq!(layer.metadata().expect("there").mode() & 0o777, 0o700);
        let sites = names(&at);
        assert!((1..=SITES_MAX).contains(&sites.len()));
        assert!(sites.iter().all(|site| names(site).is_empty()), "no try is left");
        let left = sites.first().expect("one").join("left");
        make_pair(&left, 0o700, 0o755).expect("made");
        assert!(Sites::at(at.clone()).make(&dir.path().join("other"), 0o700, 0o755));
        assert!(!left.exists());
        assert_eq!(names(&at), sites, "they are the same");
    }

    #[test]
    fn where_it_takes_long_another_place_is_tried_a_few_times() {
        let dir = tempfile::tempdir().expect("a folder");
        let (at, layer) = (dir.path().join("sites"), dir.path().join("layer"));
        let sites = Sites { slow: Duration::ZERO, ..Sites::at(at.clone()) };
        assert!(sites.make(&layer, 0o700, 0o755));
        assert!(layer.join("fs").exists());
        let slow: u64 = sites.state().removed.values().map(|(count, _)| count).sum();
        assert_eq!(slow, (TRIES_MAX as u64 - 1) * SLOW_INODES, "the last place has to do");
        let left = |site: std::io::Result<std::fs::DirEntry>| std::fs::read_dir(site.expect("reads").path());
        let left = std::fs::read_dir(&at).expect("reads").map(|site| left(site).expect("reads").count());
        assert_eq!(left.sum::<usize>(), 0);
    }

    #[test]
    fn where_no_directory_can_be_made_none_is() {
        let sites = Sites::at(PathBuf::from("/proc/none"));
        assert!(!sites.make(Path::new("/proc/none/layer"), 0o700, 0o755));
    }
}
