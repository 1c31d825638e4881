//! What a step's child does, made from its OCI spec before it is forked: all decisions are taken here, in the daemon.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Mount, Process, Spec};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::capability::CapabilitySet;
use crate::spec::{CONTAINER_DEVICES, rlimit_number};

/// Index into the descriptors that travel with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdIndex(pub usize);

#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    pub enter: Enter,
    pub process: ProcessPlan,
    /// stdin, stdout, stderr; `None` is `/dev/null`. Unused with a terminal.
    pub stdio: [Option<FdIndex>; 3],
    /// `cgroup.procs` of old hierarchies.
    pub join_cgroups: Vec<FdIndex>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Enter {
    New(Box<Container>),
    /// The namespaces (`CLONE_NEW*`) of a process in a running container.
    Join {
        process: FdIndex,
        namespaces: u32,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Container {
    pub hostname: String,
    pub own_network: bool,
    pub cgroup_namespace: bool,
    pub keyring: String,
    /// An empty directory of the host to attach the root at.
    pub attach_at: PathBuf,
    /// A second one, for sources of which only a part is mounted.
    pub scratch_at: PathBuf,
    pub root: FdIndex,
    pub readonly_root: bool,
    pub mounts: Vec<MountPlan>,
    pub cgroup: CgroupView,
    pub devices: Vec<Device>,
    /// Nodes cannot be made in a user namespace; the host's are bound instead.
    pub bind_devices: bool,
    pub masked: Vec<String>,
    pub readonly: Vec<String>,
    /// To write into a `binfmt_misc` of the new user namespace.
    pub binfmt_registration: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct MountPlan {
    pub dest: String,
    pub what: Mountable,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Mountable {
    Detached { fd: FdIndex, selector: String },
    Sysfs { flags: u32 },
    Cgroup { readonly: bool },
    FileSystem { typ: String, flags: u32, data: String },
}

/// What a step sees under `/sys/fs/cgroup`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CgroupView {
    /// Only the unified hierarchy is there: it is the mount itself.
    pub unified_only: bool,
    /// Directories of the host and the names they get.
    pub directories: Vec<(String, PathBuf)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Device {
    pub path: String,
    pub block: bool,
    pub major: u32,
    pub minor: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub terminal: bool,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub umask: u32,
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
    pub no_new_privileges: bool,
    /// Number, soft, hard.
    pub rlimits: Vec<(u32, u64, u64)>,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: Option<String>,
    /// Program, in the container, that is put in front of the process.
    pub emulator: Option<String>,
}

/// Where BuildKit's own emulator goes, and ours where the kernel cannot be told of it.
pub const EMULATOR_PATH: &str = "/dev/.buildkit_qemu_emulator";

/// Descriptors in the order of a plan's indices.
#[derive(Default)]
pub struct Fds<'a>(pub Vec<std::os::fd::BorrowedFd<'a>>);

impl<'a> Fds<'a> {
    pub fn push(&mut self, fd: std::os::fd::BorrowedFd<'a>) -> FdIndex {
        self.0.push(fd);
        FdIndex(self.0.len() - 1)
    }
}

/// Mount flags by their names in OCI mount options (linux/mount.h).
const FLAGS: [(&str, u32); 8] = [
    ("ro", libc::MS_RDONLY as u32),
    ("nosuid", libc::MS_NOSUID as u32),
    ("nodev", libc::MS_NODEV as u32),
    ("noexec", libc::MS_NOEXEC as u32),
    ("noatime", libc::MS_NOATIME as u32),
    ("nodiratime", libc::MS_NODIRATIME as u32),
    ("relatime", libc::MS_RELATIME as u32),
    ("strictatime", libc::MS_STRICTATIME as u32),
];

pub fn container<'a>(bundle: &'a Bundle, attach_dir: &Path, fds: &mut Fds<'a>) -> io::Result<Container> {
    let spec = &bundle.spec;
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("no `linux` in the spec"))?;
    let has = |typ| linux.namespaces().iter().flatten().any(|n| n.typ() == typ);
    let network = linux.namespaces().iter().flatten().find(|n| n.typ() == LinuxNamespaceType::Network);
    let in_user_namespace = bundle.rootless || has(LinuxNamespaceType::User);
    let mut mounts = Vec::new();
    for (mount, prepared) in spec.mounts().iter().flatten().zip(&bundle.mounts) {
        let what = match prepared {
            Some(prepared) => Mountable::Detached {
                fd: fds.push(std::os::fd::AsFd::as_fd(&prepared.detached.fd)),
                selector: prepared.selector.clone(),
            },
            None => mountable(mount),
        };
        // Where no cgroup could be made there is nothing to show.
        if matches!(what, Mountable::Cgroup { .. }) && bundle.cgroup.is_none() {
            continue;
        }
        mounts.push(MountPlan { dest: mount.destination().to_string_lossy().into_owned(), what });
    }
    if let Some(emulator) = &bundle.emulator {
        let what = Mountable::Detached {
            fd: fds.push(std::os::fd::AsFd::as_fd(&emulator.fd)),
            selector: String::new(),
        };
        mounts.push(MountPlan { dest: EMULATOR_PATH.to_owned(), what });
    }
    let root = spec.root().as_ref();
    Ok(Container {
        hostname: spec.hostname().clone().unwrap_or_default(),
        own_network: network.is_some_and(|n| n.path().is_none()),
        cgroup_namespace: has(LinuxNamespaceType::Cgroup),
        keyring: format!("_ses.{}", bundle.id),
        attach_at: attach_dir.join("root"),
        scratch_at: attach_dir.join("scratch"),
        root: fds.push(std::os::fd::AsFd::as_fd(&bundle.root)),
        readonly_root: root.and_then(|r| r.readonly()).unwrap_or(false),
        mounts,
        cgroup: cgroup_view(bundle, has(LinuxNamespaceType::Cgroup)),
        devices: devices(spec),
        bind_devices: in_user_namespace,
        masked: linux.masked_paths().clone().unwrap_or_default(),
        readonly: linux.readonly_paths().clone().unwrap_or_default(),
        binfmt_registration: bundle.binfmt_registration.clone(),
    })
}

fn cgroup_view(bundle: &Bundle, unified_only: bool) -> CgroupView {
    let mut view = CgroupView { unified_only, directories: Vec::new() };
    if let Some(cgroup) = &bundle.cgroup {
        let unified = cgroup.unified_path().map(|path| ("unified".to_owned(), path.to_owned()));
        let old = cgroup.old().map(|(name, path, _)| (name.to_owned(), path.to_owned()));
        view.directories = unified.into_iter().chain(old).collect();
    }
    view
}

fn mountable(mount: &Mount) -> Mountable {
    let (mut flags, mut data) = (0, Vec::new());
    for option in mount.options().iter().flatten() {
        match FLAGS.iter().find(|(name, _)| name == option) {
            Some((_, flag)) => flags |= flag,
            None if matches!(option.as_str(), "rw" | "bind" | "rbind" | "private" | "rprivate") => {}
            None => data.push(option.as_str()),
        }
    }
    match mount.typ().as_deref() {
        Some("sysfs") => Mountable::Sysfs { flags },
        Some("cgroup") => Mountable::Cgroup { readonly: flags & libc::MS_RDONLY as u32 != 0 },
        typ => Mountable::FileSystem { typ: typ.unwrap_or_default().to_owned(), flags, data: data.join(",") },
    }
}

fn devices(spec: &Spec) -> Vec<Device> {
    let always = CONTAINER_DEVICES.map(|(name, major, minor)| Device {
        path: format!("/dev/{name}"),
        block: false,
        major,
        minor,
    });
    let linux = spec.linux().as_ref();
    let further = linux.and_then(|l| l.devices().as_ref()).into_iter().flatten().map(|device| Device {
        path: device.path().to_string_lossy().into_owned(),
        block: device.typ() == oci_spec::runtime::LinuxDeviceType::B,
        major: device.major() as u32,
        minor: device.minor() as u32,
    });
    always.into_iter().chain(further).collect()
}

pub fn process(process: &Process) -> io::Result<ProcessPlan> {
    let user = process.user();
    let capabilities = process.capabilities().as_ref();
    let set = |set: Option<&Option<_>>| CapabilitySet::from_spec(set.and_then(Option::as_ref)).0;
    let mut rlimits = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let number = rlimit_number(limit.typ()).ok_or_else(|| invalid("unknown rlimit"))?;
        rlimits.push((number, limit.soft(), limit.hard()));
    }
    const UMASK_DEFAULT: u32 = 0o022;
    Ok(ProcessPlan {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().to_string_lossy().into_owned(),
        terminal: process.terminal().unwrap_or(false),
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        umask: user.umask().unwrap_or(UMASK_DEFAULT),
        bounding: set(capabilities.map(|c| c.bounding())),
        effective: set(capabilities.map(|c| c.effective())),
        permitted: set(capabilities.map(|c| c.permitted())),
        inheritable: set(capabilities.map(|c| c.inheritable())),
        ambient: set(capabilities.map(|c| c.ambient())),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits,
        oom_score_adj: process.oom_score_adj(),
        apparmor_profile: process.apparmor_profile().clone(),
        emulator: None,
    })
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
