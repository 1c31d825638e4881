//! Resource limits of processes and cgroups.

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemoryBuilder, LinuxResources, LinuxResourcesBuilder,
    PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
};

use crate::{Error, Resources, Result, Ulimit};

/// Names of limits with the kernel's numbers (asm-generic/resource.h).
const LIMITS: [(&str, PosixRlimitType, u32); 16] = [
    ("cpu", PosixRlimitType::RlimitCpu, 0),
    ("fsize", PosixRlimitType::RlimitFsize, 1),
    ("data", PosixRlimitType::RlimitData, 2),
    ("stack", PosixRlimitType::RlimitStack, 3),
    ("core", PosixRlimitType::RlimitCore, 4),
    ("rss", PosixRlimitType::RlimitRss, 5),
    ("nproc", PosixRlimitType::RlimitNproc, 6),
    ("nofile", PosixRlimitType::RlimitNofile, 7),
    ("memlock", PosixRlimitType::RlimitMemlock, 8),
    ("as", PosixRlimitType::RlimitAs, 9),
    ("locks", PosixRlimitType::RlimitLocks, 10),
    ("sigpending", PosixRlimitType::RlimitSigpending, 11),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue, 12),
    ("nice", PosixRlimitType::RlimitNice, 13),
    ("rtprio", PosixRlimitType::RlimitRtprio, 14),
    ("rttime", PosixRlimitType::RlimitRttime, 15),
];

pub fn rlimit_number(typ: PosixRlimitType) -> Option<u32> {
    LIMITS.iter().find(|(_, t, _)| *t == typ).map(|(_, _, number)| *number)
}

/// -1 becomes the largest number, which is the kernel's "unlimited".
pub fn rlimits(ulimits: &[Ulimit]) -> Result<Vec<PosixRlimit>> {
    let mut limits = Vec::new();
    for ulimit in ulimits {
        let name = ulimit.name.to_ascii_lowercase();
        let Some((_, typ, _)) = LIMITS.iter().find(|(n, ..)| *n == name) else {
            return Err(Error::UnknownUlimit { name: ulimit.name.clone() });
        };
        let limit = PosixRlimitBuilder::default().typ(*typ).soft(ulimit.soft as u64).hard(ulimit.hard as u64);
        limits.push(limit.build()?);
    }
    Ok(limits)
}

pub fn resources(limits: &Resources, devices: Vec<LinuxDeviceCgroup>) -> Result<LinuxResources> {
    let mut resources = LinuxResourcesBuilder::default().devices(devices);
    if limits.memory_bytes != 0 || limits.memory_swap_bytes != 0 {
        let mut memory = LinuxMemoryBuilder::default();
        if limits.memory_bytes != 0 {
            memory = memory.limit(limits.memory_bytes);
        }
        if limits.memory_swap_bytes != 0 {
            memory = memory.swap(limits.memory_swap_bytes);
        }
        resources = resources.memory(memory.build()?);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if limits.cpu_shares != 0 {
        cpu = cpu.shares(limits.cpu_shares);
    }
    if limits.cpu_quota_us != 0 {
        cpu = cpu.quota(limits.cpu_quota_us);
    }
    if limits.cpu_period_us != 0 {
        cpu = cpu.period(limits.cpu_period_us);
    }
    if !limits.cpuset_cpus.is_empty() {
        cpu = cpu.cpus(limits.cpuset_cpus.clone());
    }
    if !limits.cpuset_mems.is_empty() {
        cpu = cpu.mems(limits.cpuset_mems.clone());
    }
    Ok(resources.cpu(cpu.build()?).build()?)
}
