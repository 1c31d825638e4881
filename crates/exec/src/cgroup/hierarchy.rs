//! Where the cgroup hierarchies are mounted, and limits in their files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::StepCgroup;
use crate::{Error, Resources, Result};

/// The hierarchies of this machine.
#[derive(Debug, Default)]
pub struct Hierarchies {
    /// Directory of the unified hierarchy under which we may make cgroups.
    unified: Option<PathBuf>,
    old: Vec<Old>,
}

/// An old hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old {
    /// Controllers in it: `["cpu", "cpuacct"]`; `name=systemd` has a name instead.
    controllers: Vec<String>,
    root: PathBuf,
}

impl Old {
    pub fn join(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }

    /// Name of its mount point.
    pub fn name(&self) -> String {
        self.root.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Makes a directory and those above it; a new cpuset is unusable until it has its parent's values.
    pub fn make(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)?;
        if self.has("cpuset") {
            let below: Vec<_> = path.ancestors().take_while(|p| *p != self.root).collect();
            for dir in below.into_iter().rev() {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if fs::read_to_string(dir.join(file))?.trim().is_empty() {
                        let parent = dir.parent().unwrap_or(&self.root);
                        fs::write(dir.join(file), fs::read_to_string(parent.join(file))?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Hierarchies {
    pub fn find(rootless: bool) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mut found = parse(&mounts);
        if rootless {
            // Only what was delegated to this user: below the daemon's own cgroup of the unified hierarchy.
            found.old.clear();
            let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            let own = own.lines().find_map(|l| l.strip_prefix("0::/")).map(str::to_owned);
            found.unified = found.unified.zip(own).map(|(root, own)| root.join(own));
        }
        found
    }

    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    pub fn is_unified_only(&self) -> bool {
        self.unified.is_some() && self.old.is_empty()
    }

    pub fn roots(&self) -> impl Iterator<Item = &Path> {
        self.unified.iter().map(PathBuf::as_path).chain(self.old.iter().map(|o| o.root.as_path()))
    }

    /// Old hierarchies that a step needs a cgroup in.
    pub fn needed(&self, limits: &Resources, all: bool, devices_restricted: bool) -> Result<Vec<Old>> {
        let wanted = controllers_for(limits);
        if let Some(unified) = &self.unified {
            let there = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
            let somewhere =
                |c: &&str| there.split_whitespace().any(|t| t == *c) || self.old.iter().any(|old| old.has(c));
            if let Some(controller) = wanted.iter().copied().find(|c| !somewhere(c)) {
                return Err(Error::NoController { controller });
            }
        }
        let all = all || self.unified.is_none();
        let needed = |old: &&Old| {
            all || wanted.iter().any(|c| old.has(c)) || (!devices_restricted && old.has("devices"))
        };
        Ok(self.old.iter().filter(needed).cloned().collect())
    }

    pub fn limit(&self, cgroup: &StepCgroup, limits: &Resources) -> Result<()> {
        let wanted = controllers_for(limits);
        if wanted.is_empty() {
            return Ok(());
        }
        let write = |path: PathBuf, value: String| {
            fs::write(&path, value).map_err(|source| Error::Cgroup { path, source })
        };
        for (name, dir, _) in cgroup.old() {
            let old = self.old.iter().find(|o| o.name() == name);
            for (controller, file, value) in old_values(limits) {
                if old.is_some_and(|o| o.has(controller)) {
                    write(dir.join(file), value)?;
                }
            }
        }
        if let Some((dir, root)) = cgroup.unified_path().zip(self.unified.as_deref()) {
            for (controller, file, value) in unified_values(limits) {
                if !self.old.iter().any(|old| old.has(controller)) {
                    enable(root, dir, controller)?;
                    write(dir.join(file), value)?;
                }
            }
        }
        Ok(())
    }
}

/// Controllers that limits need.
pub fn controllers_for(limits: &Resources) -> Vec<&'static str> {
    let mut controllers: Vec<_> =
        unified_values(limits).into_iter().map(|(controller, ..)| controller).collect();
    controllers.dedup();
    controllers
}

/// Switches a controller on for `dir` by way of all directories above it.
fn enable(root: &Path, dir: &Path, controller: &str) -> Result<()> {
    let above: Vec<_> = dir.ancestors().skip(1).take_while(|p| p.starts_with(root)).collect();
    for path in above.into_iter().rev() {
        let path = path.join("cgroup.subtree_control");
        fs::write(&path, format!("+{controller}")).map_err(|source| Error::Cgroup { path, source })?;
    }
    Ok(())
}

fn unified_values(limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let mut values = Vec::new();
    let unlimited = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    if limits.memory_bytes != 0 {
        values.push(("memory", "memory.max", unlimited(limits.memory_bytes)));
    }
    if limits.memory_swap_bytes != 0 {
        // Counted apart from memory here, together with it in the old hierarchy and in the setting.
        let swap = limits.memory_swap_bytes
            - if limits.memory_swap_bytes > 0 { limits.memory_bytes.max(0) } else { 0 };
        values.push(("memory", "memory.swap.max", unlimited(swap)));
    }
    if limits.cpu_shares != 0 {
        values.push(("cpu", "cpu.weight", weight(limits.cpu_shares).to_string()));
    }
    if limits.cpu_quota_us != 0 || limits.cpu_period_us != 0 {
        const PERIOD_DEFAULT_US: u64 = 100_000;
        let period = if limits.cpu_period_us == 0 { PERIOD_DEFAULT_US } else { limits.cpu_period_us };
        let quota = if limits.cpu_quota_us > 0 { limits.cpu_quota_us.to_string() } else { "max".to_owned() };
        values.push(("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if !limits.cpuset_cpus.is_empty() {
        values.push(("cpuset", "cpuset.cpus", limits.cpuset_cpus.clone()));
    }
    if !limits.cpuset_mems.is_empty() {
        values.push(("cpuset", "cpuset.mems", limits.cpuset_mems.clone()));
    }
    values
}

/// Shares of 2 to 262144 as a weight of 1 to 10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn old_values(limits: &Resources) -> Vec<(&'static str, &'static str, String)> {
    let mut values = Vec::new();
    if limits.memory_bytes != 0 {
        values.push(("memory", "memory.limit_in_bytes", limits.memory_bytes.to_string()));
    }
    if limits.memory_swap_bytes != 0 {
        values.push(("memory", "memory.memsw.limit_in_bytes", limits.memory_swap_bytes.to_string()));
    }
    if limits.cpu_shares != 0 {
        values.push(("cpu", "cpu.shares", limits.cpu_shares.to_string()));
    }
    if limits.cpu_period_us != 0 {
        values.push(("cpu", "cpu.cfs_period_us", limits.cpu_period_us.to_string()));
    }
    if limits.cpu_quota_us != 0 {
        values.push(("cpu", "cpu.cfs_quota_us", limits.cpu_quota_us.to_string()));
    }
    if !limits.cpuset_cpus.is_empty() {
        values.push(("cpuset", "cpuset.cpus", limits.cpuset_cpus.clone()));
    }
    if !limits.cpuset_mems.is_empty() {
        values.push(("cpuset", "cpuset.mems", limits.cpuset_mems.clone()));
    }
    values
}

/// A parent as a path: `x.slice:prefix:`, a manager's form, means the slice. No component leads upwards.
pub fn clean_parent(parent: &str) -> String {
    let parent = if parent.contains(".slice") { parent.split(':').next().unwrap_or(parent) } else { parent };
    let parts = parent.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..");
    parts.fold(String::new(), |path, part| format!("{path}/{part}"))
}

fn parse(mountinfo: &str) -> Hierarchies {
    let mut found = Hierarchies::default();
    for line in mountinfo.lines() {
        let Some((mount, fs)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(typ), Some(options)) =
            (mount.split(' ').nth(4), fs.split(' ').next(), fs.split(' ').nth(2))
        else {
            continue;
        };
        match typ {
            "cgroup2" if found.unified.is_none() => found.unified = Some(point.into()),
            "cgroup" => {
                let controllers =
                    options.split(',').filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "clone_children"));
                let controllers =
                    controllers.filter(|o| !o.starts_with("release_agent=")).map(str::to_owned).collect();
                let old = Old { controllers, root: point.into() };
                if !found.old.contains(&old) {
                    found.old.push(old);
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines() {
        let hybrid = parse(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw shared:3 - cgroup2 cgroup2 rw\n",
        );
        assert!(!hybrid.is_unified_only());
        assert_eq!(hybrid.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(hybrid.old[0].name(), "cpu,cpuacct");
        assert!(hybrid.old[0].has("cpuacct") && hybrid.old[1].has("name=systemd"));
        let unified = parse("29 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(unified.is_unified_only());
    }

    #[test]
    fn parents() {
        assert_eq!(clean_parent(""), "");
        assert_eq!(clean_parent("a/../b//c"), "/a/b/c");
        assert_eq!(clean_parent("system.slice:docker:"), "/system.slice");
    }

    #[test]
    fn values() {
        let limits = Resources {
            memory_bytes: 64,
            memory_swap_bytes: 96,
            cpu_quota_us: 5,
            cpu_shares: 1024,
            ..Resources::default()
        };
        let values: Vec<_> =
            unified_values(&limits).into_iter().map(|(_, f, v)| format!("{f}={v}")).collect();
        assert_eq!(values, ["memory.max=64", "memory.swap.max=32", "cpu.weight=39", "cpu.max=5 100000"]);
        assert_eq!(controllers_for(&limits), ["memory", "cpu"]);
    }
}
