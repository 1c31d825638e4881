//! What to run: a step, its process, its root file system and its mounts, as plain data.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// The architecture and variant of a Linux platform, spelled as in image configs: `amd64`, `arm64`, `arm` + `v7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arch {
    pub architecture: String,
    /// Empty where the platform has none.
    pub variant: String,
}

impl Arch {
    pub fn new(architecture: impl Into<String>, variant: impl Into<String>) -> Self {
        Self { architecture: architecture.into(), variant: variant.into() }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "linux/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// One step to run.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the container; ASCII letters and digits only. Empty: a fresh one is made.
    pub id: String,
    pub process: Process,
    /// Empty means `buildkitsandbox`.
    pub hostname: String,
    pub rootfs: RootMount,
    /// Further mounts, in order; a later one with the same destination replaces an earlier one in place.
    pub mounts: Vec<StepMount>,
    pub network: NetMode,
    pub security: SecurityMode,
    /// Added to `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// Empty: the daemon's own limits are inherited.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` in bytes; 0 means 64 MiB.
    pub shm_size_bytes: u64,
    /// Overrides [`crate::ExecutorConfig::cgroup_parent`] when not empty.
    pub cgroup_parent: String,
    /// Limits of the step's cgroup.
    pub resources: Resources,
    /// Exit codes that count as success. Empty means only 0.
    pub valid_exit_codes: Vec<i32>,
    /// Platform of the root file system; `None` is this machine's.
    pub platform: Option<Arch>,
    /// Mount points that had to be made are removed together with the parents that had to be made for them.
    pub remove_mount_stubs_recursive: bool,
}

/// The process of a step.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub args: Vec<String>,
    /// `NAME=value`; the caller has put `PATH` and the proxy variables in.
    pub env: Vec<String>,
    /// Absolute path inside the root file system; created when missing. Empty means `/`.
    pub cwd: String,
    /// `user`, `uid`, `user:group`, `uid:gid`, … looked up in the root file system. Empty means root.
    pub user: String,
    /// Run on a pseudo terminal: stdout carries everything, stderr stays silent.
    pub tty: bool,
}

/// A further process in a running container; what is empty is taken from the container's first process.
#[derive(Clone, Debug, Default)]
pub struct ExecProcess {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub tty: bool,
    pub valid_exit_codes: Vec<i32>,
}

/// Root file system of a step.
#[derive(Clone, Debug)]
pub struct RootMount {
    pub source: MountSource,
    /// The step sees it read-only; mount points that are missing are still made.
    pub readonly: bool,
}

/// A mount below the root.
#[derive(Clone, Debug)]
pub struct StepMount {
    pub source: MountSource,
    /// Path inside the source that is mounted; resolved beneath the source, symlinks included. Empty means all of it.
    pub selector: String,
    /// Absolute path inside the root file system; made when missing (a file when the source is one).
    pub dest: String,
    pub readonly: bool,
    /// Further mount flags as in OCI specs (`nosuid`, `nodev`, `noexec`, …).
    pub options: Vec<String>,
}

/// Where the files of a mount come from. Paths are the daemon's.
#[derive(Clone, Debug)]
pub enum MountSource {
    Bind(BindMount),
    Overlay(OverlayMount),
    Tmpfs(TmpfsMount),
    /// A detached mount that the caller made (`open_tree(OPEN_TREE_CLONE)`, `fsmount`); it is used once.
    Fd(Arc<OwnedFd>),
}

#[derive(Clone, Debug)]
pub struct BindMount {
    pub path: PathBuf,
    /// With the mounts below it.
    pub recursive: bool,
}

/// An overlay to be mounted for the time of the step; the number of lower directories is not limited by the page size.
#[derive(Clone, Debug)]
pub struct OverlayMount {
    /// Topmost first, as in `lowerdir=`. With one lower directory and no upper it becomes a read-only bind.
    pub lower: Vec<PathBuf>,
    /// `None`: the overlay is read-only.
    pub upper: Option<OverlayUpper>,
    /// `userxattr`: needed where the daemon lives in a user namespace.
    pub userxattr: bool,
    /// `volatile`: no syncing of the upper directory when it is unmounted.
    pub volatile: bool,
}

#[derive(Clone, Debug)]
pub struct OverlayUpper {
    pub upper: PathBuf,
    pub work: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct TmpfsMount {
    /// 0: the kernel's default.
    pub size_bytes: u64,
    /// Permission bits of its root; `None` is 1777 as the kernel has it.
    pub mode: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum NetMode {
    /// What the executor's network provider gives (BuildKit's `UNSET`).
    #[default]
    Sandbox,
    /// The daemon's own network.
    Host,
    /// Loopback only.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SecurityMode {
    #[default]
    Sandbox,
    /// All capabilities, no seccomp filter, nothing masked, devices.
    Insecure,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIp {
    pub host: String,
    pub ip: IpAddr,
}

/// A resource limit; `name` as in `docker build --ulimit` (`nofile`), -1 is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// Limits of the step's cgroup; 0 or empty is none. Same meaning as in `pb.LinuxResources`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Resources {
    pub memory_bytes: i64,
    pub memory_swap_bytes: i64,
    pub cpu_shares: u64,
    pub cpu_period_us: u64,
    pub cpu_quota_us: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
}
