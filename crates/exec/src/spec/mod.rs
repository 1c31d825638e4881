//! A step as an OCI runtime spec: the defaults of containerd's spec as BuildKit changes them.

mod devices;
mod limits;
mod mounts;

use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};

use crate::capability::CapabilitySet;
use crate::hosts::DEFAULT_HOSTNAME;
use crate::user::User;
use crate::userns::IdRange;
use crate::{Error, NetMode, Result, SecurityMode, Step};

pub use devices::{CONTAINER_DEVICES, DeviceRule, device_rules};
pub use limits::rlimit_number;
pub use mounts::PreparedIndex;

/// What about this machine and daemon goes into a spec.
pub struct Environment<'a> {
    pub rootless: bool,
    /// The machine has the unified cgroup hierarchy only.
    pub cgroup_namespace: bool,
    /// Absolute path of the step's cgroup; `None` where there are no cgroups.
    pub cgroup_path: Option<&'a str>,
    /// The step's network is the daemon's.
    pub host_network: bool,
    /// Path of a ready network namespace to join.
    pub network_namespace: Option<&'a std::path::Path>,
    pub apparmor_profile: Option<&'a str>,
    pub oom_score_adj: Option<i32>,
    /// Ids of a user namespace for the step, for emulation.
    pub user_namespace: Option<(&'a [IdRange], &'a [IdRange])>,
}

/// A spec, and for each of its mounts the step's own mount behind it, if one is.
pub struct Built {
    pub spec: Spec,
    pub prepared: Vec<Option<PreparedIndex>>,
}

/// Paths of the kernel's that a sandboxed step cannot look into.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/scsi",
];

/// Paths of the kernel's that a sandboxed step can only read.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub fn build(step: &Step, user: &User, env: &Environment<'_>) -> Result<Built> {
    for mount in &step.mounts {
        check_destination(&mount.dest)?;
    }
    let insecure = step.security == SecurityMode::Insecure;
    let (mounts, prepared) = mounts::all(step, env.rootless);
    let capabilities = if insecure {
        CapabilitySet::available().map_err(|source| Error::Io { what: "read own capabilities", source })?
    } else {
        CapabilitySet::docker_default()
    };
    let hostname = if step.hostname.is_empty() { DEFAULT_HOSTNAME } else { &step.hostname };
    let root = RootBuilder::default().path("rootfs").readonly(step.rootfs.readonly).build()?;
    let spec = SpecBuilder::default()
        // The oldest that has all of it: runtimes refuse versions newer than themselves.
        .version("1.0.2")
        .root(root)
        .hostname(hostname)
        .mounts(mounts)
        .process(process(step, user, env, capabilities, insecure)?)
        .linux(linux(step, env, capabilities, insecure)?)
        .build()?;
    Ok(Built { spec, prepared })
}

fn process(
    step: &Step,
    user: &User,
    env: &Environment<'_>,
    capabilities: CapabilitySet,
    insecure: bool,
) -> Result<Process> {
    let mut groups = user.groups.clone();
    if !groups.contains(&user.gid) {
        groups.insert(0, user.gid);
    }
    let user = UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(groups).build()?;
    let set = capabilities.to_spec();
    let none = || CapabilitySet::default().to_spec();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .permitted(set.clone())
        .effective(set.clone())
        .inheritable(if insecure { set.clone() } else { none() })
        .ambient(if insecure { set } else { none() })
        .build()?;
    let cwd = if step.process.cwd.is_empty() { "/" } else { &step.process.cwd };
    let mut process = ProcessBuilder::default()
        .terminal(step.process.tty)
        .user(user)
        .args(step.process.args.clone())
        .env(step.process.env.clone())
        .cwd(cwd)
        .capabilities(capabilities)
        .no_new_privileges(false)
        .rlimits(limits::rlimits(&step.ulimits)?);
    if let Some(score) = env.oom_score_adj {
        process = process.oom_score_adj(score);
    }
    if let (Some(profile), false) = (env.apparmor_profile, insecure) {
        process = process.apparmor_profile(profile);
    }
    Ok(process.build()?)
}

fn linux(step: &Step, env: &Environment<'_>, capabilities: CapabilitySet, insecure: bool) -> Result<Linux> {
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(step, env)?)
        .resources(limits::resources(&step.resources, devices::rules_in_spec(insecure))?)
        .devices(if insecure && !env.rootless { devices::insecure_devices()? } else { Vec::new() });
    let paths =
        |paths: &[&str]| if insecure { vec![] } else { paths.iter().map(|p| (*p).to_owned()).collect() };
    linux = linux.masked_paths(paths(&MASKED)).readonly_paths(paths(&READONLY));
    if let Some(path) = env.cgroup_path {
        linux = linux.cgroups_path(path);
    }
    if let Some((uids, gids)) = env.user_namespace {
        linux = linux.uid_mappings(id_mappings(uids)?).gid_mappings(id_mappings(gids)?);
    }
    if !insecure {
        match crate::seccomp::default_profile(capabilities) {
            Some(profile) => linux = linux.seccomp(profile),
            None => tracing::warn!(
                "no seccomp profile for this architecture; steps run without a system call filter"
            ),
        }
    }
    Ok(linux.build()?)
}

fn namespaces(step: &Step, env: &Environment<'_>) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Type;
    let mut types = vec![Type::Pid, Type::Ipc, Type::Uts, Type::Mount];
    if env.cgroup_namespace {
        types.push(Type::Cgroup);
    }
    if env.user_namespace.is_some() {
        types.push(Type::User);
    }
    let mut namespaces = Vec::new();
    for typ in types {
        namespaces.push(LinuxNamespaceBuilder::default().typ(typ).build()?);
    }
    if !(env.host_network || step.network == NetMode::Host) {
        let mut network = LinuxNamespaceBuilder::default().typ(Type::Network);
        if let Some(path) = env.network_namespace {
            network = network.path(path);
        }
        namespaces.push(network.build()?);
    }
    Ok(namespaces)
}

fn id_mappings(ranges: &[IdRange]) -> Result<Vec<LinuxIdMapping>> {
    let mut mappings = Vec::new();
    for range in ranges {
        let mapping = LinuxIdMappingBuilder::default();
        mappings.push(mapping.container_id(range.inside).host_id(range.outside).size(range.count).build()?);
    }
    Ok(mappings)
}

/// Nothing may be mounted inside `/proc`: a step could pass files of its own off as the kernel's.
fn check_destination(dest: &str) -> Result<()> {
    let mut parts = dest.split('/').filter(|part| !part.is_empty() && *part != ".");
    if parts.next() == Some("proc") && parts.next().is_some() {
        return Err(Error::MountInsideProc { dest: dest.to_owned() });
    }
    Ok(())
}
