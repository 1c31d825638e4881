//! Linux capabilities by name and as sets.

use std::collections::HashSet;

/// A capability; the value is the kernel's number (linux/capability.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    Chown = 0,
    DacOverride = 1,
    DacReadSearch = 2,
    Fowner = 3,
    Fsetid = 4,
    Kill = 5,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    NetBindService = 10,
    NetRaw = 13,
    SysModule = 16,
    SysRawio = 17,
    SysChroot = 18,
    SysPtrace = 19,
    SysPacct = 20,
    SysAdmin = 21,
    SysBoot = 22,
    SysNice = 23,
    SysTime = 25,
    SysTtyConfig = 26,
    Mknod = 27,
    AuditWrite = 29,
    Setfcap = 31,
    Syslog = 34,
    Perfmon = 38,
    Bpf = 39,
}

/// Names in the order of their numbers, as OCI specs spell them after `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each, as in `/proc/self/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CapabilitySet(pub u64);

impl CapabilitySet {
    /// What Docker gives every container: `00000000a80425fb`.
    pub fn docker_default() -> Self {
        use Capability::*;
        [
            Chown,
            DacOverride,
            Fsetid,
            Fowner,
            Mknod,
            NetRaw,
            Setgid,
            Setuid,
            Setfcap,
            Setpcap,
            NetBindService,
            SysChroot,
            Kill,
            AuditWrite,
        ]
        .into_iter()
        .fold(Self(0), |set, c| Self(set.0 | 1 << c as u8))
    }

    /// Capabilities that this process can hand on.
    pub fn available() -> std::io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        match (field("CapBnd:"), field("CapEff:")) {
            (Some(bounding), Some(effective)) => Ok(Self(bounding & effective)),
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }

    pub fn contains(self, capability: Capability) -> bool {
        self.0 & (1 << capability as u8) != 0
    }

    /// As in an OCI spec. The kernel's newest ones, which have no name here, are left out.
    pub fn to_spec(self) -> HashSet<oci_spec::runtime::Capability> {
        let names = NAMES.iter().enumerate().filter(|(i, _)| self.0 & (1 << i) != 0);
        names.filter_map(|(_, name)| name.parse().ok()).collect()
    }

    /// From an OCI spec.
    pub fn from_spec(set: Option<&HashSet<oci_spec::runtime::Capability>>) -> Self {
        set.into_iter().flatten().fold(Self(0), |all, capability| {
            let name = capability.to_string();
            let name = name.strip_prefix("CAP_").unwrap_or(&name);
            NAMES.iter().position(|n| *n == name).map_or(all, |i| Self(all.0 | 1 << i))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_default_is_the_known_mask() {
        let set = CapabilitySet::docker_default();
        assert_eq!(format!("{:016x}", set.0), "00000000a80425fb");
        assert_eq!(CapabilitySet::from_spec(Some(&set.to_spec())), set);
    }

    #[test]
    fn every_name_is_known_to_the_spec() {
        let all = CapabilitySet((1 << NAMES.len()) - 1);
        assert_eq!(CapabilitySet::from_spec(Some(&all.to_spec())), all);
    }
}
