//! The exec operation: one process over a set of mounts.

use kiln_proto::pb;

use super::{input_from_wire, output_from_wire, to_wire};
use crate::Error;

/// Where the root file system is mounted.
pub const ROOT_MOUNT: &str = "/";

/// Runs a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOp {
    /// What is started.
    pub meta: Meta,
    /// Its file systems; one of them at [`ROOT_MOUNT`].
    pub mounts: Vec<Mount>,
    /// Its network.
    pub network: NetMode,
    /// Its privileges.
    pub security: SecurityMode,
    /// Secrets given as variables.
    pub secret_env: Vec<SecretEnv>,
    /// CDI devices given to it.
    pub devices: Vec<Device>,
}

/// What is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Program and arguments; not empty.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]` by name or number; empty: root.
    pub user: String,
    /// Proxies, which do not count for the cache.
    pub proxy_env: Option<ProxyEnv>,
    /// Lines of `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Name of the machine; empty: the default.
    pub hostname: String,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Parent of its control group; empty: the default.
    pub cgroup_parent: String,
    /// Also parents of mount points that were made for it are removed after the run.
    pub remove_mount_stubs_recursive: bool,
    /// Exit codes that are no failure; empty: 0 only.
    pub valid_exit_codes: Vec<i32>,
}

/// Values of the proxy variables; empty: not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyEnv {
    /// For http.
    pub http_proxy: String,
    /// For https.
    pub https_proxy: String,
    /// For ftp.
    pub ftp_proxy: String,
    /// Hosts to reach directly.
    pub no_proxy: String,
    /// For everything.
    pub all_proxy: String,
}

/// A line of `/etc/hosts`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub host: String,
    /// The address.
    pub ip: String,
}

/// A resource limit, as `setrlimit` takes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ulimit {
    /// Name such as `nofile`.
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// The network of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NetMode {
    /// What the daemon gives by default.
    #[default]
    Sandbox,
    /// The host's.
    Host,
    /// None but loopback.
    None,
}

/// The privileges of a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SecurityMode {
    /// Confined.
    #[default]
    Sandbox,
    /// All of them.
    Insecure,
}

/// A secret given as a variable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretEnv {
    /// The secret's id.
    pub id: String,
    /// The variable's name.
    pub name: String,
    /// Do without if there is no such secret.
    pub optional: bool,
}

/// A CDI device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// Name or pattern.
    pub name: String,
    /// Do without if there is no such device.
    pub optional: bool,
}

/// A file system of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// Input it starts from; none: scratch (or no files of the graph at all).
    pub input: Option<usize>,
    /// Path in the input that is mounted; empty: all of it.
    pub selector: String,
    /// Where it is mounted.
    pub dest: String,
    /// Which output of the vertex it becomes, if any.
    pub output: Option<usize>,
    /// Cannot be written to.
    pub readonly: bool,
    /// What it is.
    pub kind: MountKind,
    /// Names the result for progress groups.
    pub result_id: String,
    /// Whether the input's content may stand for its definition in the cache key.
    pub content_cache: ContentCache,
}

/// What a mount is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MountKind {
    /// The input (or scratch) itself.
    #[default]
    Bind,
    /// A directory that survives the build.
    Cache(CacheMount),
    /// Memory, this many bytes at most; 0: the system's default.
    Tmpfs {
        /// Size in bytes.
        size: i64,
    },
    /// A file with a secret.
    Secret(SecretMount),
    /// A socket of an ssh agent.
    Ssh(SshMount),
}

/// A directory that survives the build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CacheMount {
    /// Tells one from another; empty: the mount's path.
    pub id: String,
    /// What happens when two steps want it at once.
    pub sharing: CacheSharing,
}

/// What happens when two steps want one cache directory at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum CacheSharing {
    /// Both write to it.
    #[default]
    Shared,
    /// Each gets its own.
    Private,
    /// One waits for the other.
    Locked,
}

/// A file with a secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretMount {
    /// The secret's id.
    pub id: String,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
    /// Permissions of the file.
    pub mode: u32,
    /// Do without if there is no such secret.
    pub optional: bool,
}

/// A socket of an ssh agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SshMount {
    /// The agent's id.
    pub id: String,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
    /// Permissions of the socket.
    pub mode: u32,
    /// Do without if there is no such agent.
    pub optional: bool,
}

/// Whether a mount's content may stand for its definition in the cache key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ContentCache {
    /// If it is read-only or has a selector, as the worker decides.
    #[default]
    Default,
    /// Yes.
    On,
    /// No.
    Off,
}

impl ExecOp {
    pub(super) fn from_pb(op: pb::ExecOp, inputs: usize) -> Result<Self, Error> {
        let network = NetMode::try_from(op.network)?;
        let security = SecurityMode::try_from(op.security)?;
        let meta = op.meta.ok_or_else(|| Error::Invalid("exec op with no meta".into()))?;
        if meta.args.is_empty() {
            return Err(Error::Invalid("exec op with no args".into()));
        }
        if op.mounts.is_empty() {
            return Err(Error::Invalid("exec op with no mounts".into()));
        }
        let count = op.mounts.len();
        let mounts = op.mounts.into_iter().map(|mount| Mount::from_pb(mount, inputs, count));
        let mounts: Vec<Mount> = mounts.collect::<Result<_, _>>()?;
        if !mounts.iter().any(|mount| mount.dest == ROOT_MOUNT) {
            return Err(Error::Invalid("exec op with no rootfs".into()));
        }
        Ok(Self {
            meta: meta.into(),
            mounts,
            network,
            security,
            secret_env: op
                .secretenv
                .into_iter()
                .map(|secret| SecretEnv { id: secret.id, name: secret.name, optional: secret.optional })
                .collect(),
            devices: op
                .cdi_devices
                .into_iter()
                .map(|device| Device { name: device.name, optional: device.optional })
                .collect(),
        })
    }

    pub(super) fn to_pb(&self) -> pb::ExecOp {
        pb::ExecOp {
            meta: Some(self.meta.to_pb()),
            mounts: self.mounts.iter().map(Mount::to_pb).collect(),
            network: match self.network {
                NetMode::Sandbox => pb::NetMode::Unset,
                NetMode::Host => pb::NetMode::Host,
                NetMode::None => pb::NetMode::None,
            } as i32,
            security: match self.security {
                SecurityMode::Sandbox => pb::SecurityMode::Sandbox,
                SecurityMode::Insecure => pb::SecurityMode::Insecure,
            } as i32,
            secretenv: self
                .secret_env
                .iter()
                .map(|secret| pb::SecretEnv {
                    id: secret.id.clone(),
                    name: secret.name.clone(),
                    optional: secret.optional,
                })
                .collect(),
            cdi_devices: self
                .devices
                .iter()
                .map(|device| pb::CdiDevice { name: device.name.clone(), optional: device.optional })
                .collect(),
        }
    }

    /// One more than the highest output that a mount becomes.
    pub fn output_count(&self) -> usize {
        self.mounts.iter().filter_map(|mount| mount.output).max().map_or(0, |highest| highest + 1)
    }
}

impl TryFrom<i32> for NetMode {
    type Error = Error;

    fn try_from(value: i32) -> Result<Self, Error> {
        Ok(match pb::NetMode::try_from(value) {
            Ok(pb::NetMode::Unset) => Self::Sandbox,
            Ok(pb::NetMode::Host) => Self::Host,
            Ok(pb::NetMode::None) => Self::None,
            Err(_) => return Err(Error::UnknownEnum { field: "network mode", value }),
        })
    }
}

impl TryFrom<i32> for SecurityMode {
    type Error = Error;

    fn try_from(value: i32) -> Result<Self, Error> {
        Ok(match pb::SecurityMode::try_from(value) {
            Ok(pb::SecurityMode::Sandbox) => Self::Sandbox,
            Ok(pb::SecurityMode::Insecure) => Self::Insecure,
            Err(_) => return Err(Error::UnknownEnum { field: "security mode", value }),
        })
    }
}

impl From<pb::Meta> for Meta {
    fn from(meta: pb::Meta) -> Self {
        Self {
            args: meta.args,
            env: meta.env,
            cwd: meta.cwd,
            user: meta.user,
            proxy_env: meta.proxy_env.map(|proxy| ProxyEnv {
                http_proxy: proxy.http_proxy,
                https_proxy: proxy.https_proxy,
                ftp_proxy: proxy.ftp_proxy,
                no_proxy: proxy.no_proxy,
                all_proxy: proxy.all_proxy,
            }),
            extra_hosts: meta
                .extra_hosts
                .into_iter()
                .map(|line| ExtraHost { host: line.host, ip: line.ip })
                .collect(),
            hostname: meta.hostname,
            ulimits: meta
                .ulimit
                .into_iter()
                .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
                .collect(),
            cgroup_parent: meta.cgroup_parent,
            remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
            valid_exit_codes: meta.valid_exit_codes,
        }
    }
}

impl Meta {
    /// The protobuf form.
    pub fn to_pb(&self) -> pb::Meta {
        pb::Meta {
            args: self.args.clone(),
            env: self.env.clone(),
            cwd: self.cwd.clone(),
            user: self.user.clone(),
            proxy_env: self.proxy_env.as_ref().map(|proxy| pb::ProxyEnv {
                http_proxy: proxy.http_proxy.clone(),
                https_proxy: proxy.https_proxy.clone(),
                ftp_proxy: proxy.ftp_proxy.clone(),
                no_proxy: proxy.no_proxy.clone(),
                all_proxy: proxy.all_proxy.clone(),
            }),
            extra_hosts: self
                .extra_hosts
                .iter()
                .map(|line| pb::HostIp { host: line.host.clone(), ip: line.ip.clone() })
                .collect(),
            hostname: self.hostname.clone(),
            ulimit: self
                .ulimits
                .iter()
                .map(|limit| pb::Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
                .collect(),
            cgroup_parent: self.cgroup_parent.clone(),
            remove_mount_stubs_recursive: self.remove_mount_stubs_recursive,
            valid_exit_codes: self.valid_exit_codes.clone(),
        }
    }
}

impl Mount {
    /// Reads one mount; `inputs` is how many inputs there are, `outputs` bounds the output number.
    pub fn from_pb(mount: pb::Mount, inputs: usize, outputs: usize) -> Result<Self, Error> {
        let kind = match pb::MountType::try_from(mount.mount_type) {
            Ok(pb::MountType::Bind) => MountKind::Bind,
            Ok(pb::MountType::Cache) => {
                let opt = mount.cache_opt.ok_or_else(|| Error::Invalid("cache mount options".into()))?;
                MountKind::Cache(CacheMount {
                    sharing: match pb::CacheSharingOpt::try_from(opt.sharing) {
                        Ok(pb::CacheSharingOpt::Shared) => CacheSharing::Shared,
                        Ok(pb::CacheSharingOpt::Private) => CacheSharing::Private,
                        Ok(pb::CacheSharingOpt::Locked) => CacheSharing::Locked,
                        Err(_) => {
                            return Err(Error::UnknownEnum {
                                field: "cache sharing option",
                                value: opt.sharing,
                            });
                        }
                    },
                    id: opt.id,
                })
            }
            Ok(pb::MountType::Tmpfs) => MountKind::Tmpfs { size: mount.tmpfs_opt.map_or(0, |opt| opt.size) },
            Ok(pb::MountType::Secret) => {
                let opt = mount.secret_opt.ok_or_else(|| Error::Invalid("secret mount options".into()))?;
                MountKind::Secret(SecretMount {
                    id: opt.id,
                    uid: opt.uid,
                    gid: opt.gid,
                    mode: opt.mode,
                    optional: opt.optional,
                })
            }
            Ok(pb::MountType::Ssh) => {
                let opt = mount.ssh_opt.ok_or_else(|| Error::Invalid("ssh mount options".into()))?;
                MountKind::Ssh(SshMount {
                    id: opt.id,
                    uid: opt.uid,
                    gid: opt.gid,
                    mode: opt.mode,
                    optional: opt.optional,
                })
            }
            Err(_) => return Err(Error::UnknownEnum { field: "mount type", value: mount.mount_type }),
        };
        Ok(Self {
            input: input_from_wire(mount.input, inputs)?,
            selector: mount.selector,
            dest: mount.dest,
            // Mounts without files of the graph carry a number that means nothing.
            output: match kind {
                MountKind::Bind | MountKind::Cache(_) => output_from_wire(mount.output, outputs)?,
                MountKind::Tmpfs { .. } | MountKind::Secret(_) | MountKind::Ssh(_) => None,
            },
            readonly: mount.readonly,
            kind,
            result_id: mount.result_id,
            content_cache: match pb::MountContentCache::try_from(mount.content_cache) {
                Ok(pb::MountContentCache::Default) => ContentCache::Default,
                Ok(pb::MountContentCache::On) => ContentCache::On,
                Ok(pb::MountContentCache::Off) => ContentCache::Off,
                Err(_) => {
                    return Err(Error::UnknownEnum {
                        field: "mount content cache",
                        value: mount.content_cache,
                    });
                }
            },
        })
    }

    /// The protobuf form.
    pub fn to_pb(&self) -> pb::Mount {
        let mut mount = pb::Mount {
            input: to_wire(self.input),
            selector: self.selector.clone(),
            dest: self.dest.clone(),
            output: to_wire(self.output),
            readonly: self.readonly,
            result_id: self.result_id.clone(),
            content_cache: match self.content_cache {
                ContentCache::Default => pb::MountContentCache::Default,
                ContentCache::On => pb::MountContentCache::On,
                ContentCache::Off => pb::MountContentCache::Off,
            } as i32,
            ..Default::default()
        };
        match &self.kind {
            MountKind::Bind => {}
            MountKind::Cache(cache) => {
                mount.mount_type = pb::MountType::Cache as i32;
                mount.cache_opt = Some(pb::CacheOpt {
                    id: cache.id.clone(),
                    sharing: match cache.sharing {
                        CacheSharing::Shared => pb::CacheSharingOpt::Shared,
                        CacheSharing::Private => pb::CacheSharingOpt::Private,
                        CacheSharing::Locked => pb::CacheSharingOpt::Locked,
                    } as i32,
                });
            }
            MountKind::Tmpfs { size } => {
                mount.mount_type = pb::MountType::Tmpfs as i32;
                mount.tmpfs_opt = Some(pb::TmpfsOpt { size: *size });
            }
            MountKind::Secret(secret) => {
                mount.output = 0;
                mount.mount_type = pb::MountType::Secret as i32;
                mount.secret_opt = Some(pb::SecretOpt {
                    id: secret.id.clone(),
                    uid: secret.uid,
                    gid: secret.gid,
                    mode: secret.mode,
                    optional: secret.optional,
                });
            }
            MountKind::Ssh(ssh) => {
                mount.output = 0;
                mount.mount_type = pb::MountType::Ssh as i32;
                mount.ssh_opt = Some(pb::SshOpt {
                    id: ssh.id.clone(),
                    uid: ssh.uid,
                    gid: ssh.gid,
                    mode: ssh.mode,
                    optional: ssh.optional,
                });
            }
        }
        mount
    }
}
