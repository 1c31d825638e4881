//! Running a process on a state.

use std::sync::Arc;

use crate::constraints::Constraints;
use crate::error::Error;
use crate::node::{Node, Output, OutputKind};
use crate::op::{
    ContentCache, Device, ExecOp, Meta, Mount, MountKind, NetMode, Op, ProxyEnv, ROOT_MOUNT, SecretEnv,
    SecretMount, SecurityMode, SshMount,
};
use crate::{State, caps};

/// What to run. Environment, directory, user and so on are the state's.
#[derive(Debug, Clone, Default)]
pub struct RunInfo {
    /// Program and arguments.
    pub args: Vec<String>,
    /// The root file system cannot be written to (and is no output).
    pub readonly_root: bool,
    /// Mounts besides the root.
    pub mounts: Vec<MountInfo>,
    /// Secrets.
    pub secrets: Vec<SecretInfo>,
    /// Agents.
    pub ssh: Vec<SshInfo>,
    /// Proxies.
    pub proxy_env: Option<ProxyEnv>,
    /// CDI devices.
    pub devices: Vec<Device>,
}

/// A mount besides the root.
#[derive(Debug, Clone)]
pub struct MountInfo {
    /// Where.
    pub target: String,
    /// From what; scratch for tmpfs.
    pub source: State,
    /// Path in the source; empty: all of it.
    pub selector: String,
    /// Cannot be written to.
    pub readonly: bool,
    /// What is written to it is dropped.
    pub no_output: bool,
    /// [`MountKind::Bind`], [`MountKind::Cache`] or [`MountKind::Tmpfs`].
    pub kind: MountKind,
    /// Whether the source's content may stand for its definition in the cache key.
    pub content_cache: ContentCache,
}

impl MountInfo {
    /// A writable bind mount of `source`.
    pub fn bind(target: impl Into<String>, source: State) -> Self {
        Self {
            target: target.into(),
            source,
            selector: String::new(),
            readonly: false,
            no_output: false,
            kind: MountKind::Bind,
            content_cache: ContentCache::Default,
        }
    }
}

/// A secret of a process: as a file, as a variable, or both.
#[derive(Debug, Clone, Default)]
pub struct SecretInfo {
    /// The secret's id.
    pub id: String,
    /// Path of the file.
    pub target: Option<String>,
    /// Name of the variable.
    pub env: Option<String>,
    /// Owner of the file.
    pub uid: u32,
    /// Group of the file.
    pub gid: u32,
    /// Permissions of the file.
    pub mode: u32,
    /// Do without if there is no such secret.
    pub optional: bool,
}

/// An ssh agent of a process.
#[derive(Debug, Clone, Default)]
pub struct SshInfo {
    /// The agent's id.
    pub id: String,
    /// Path of the socket; none: `/run/buildkit/ssh_agent.N`.
    pub target: Option<String>,
    /// Owner of the socket.
    pub uid: u32,
    /// Group of the socket.
    pub gid: u32,
    /// Permissions of the socket.
    pub mode: u32,
    /// Do without if there is no such agent.
    pub optional: bool,
}

/// The states after a run.
#[derive(Debug, Clone)]
pub struct ExecState {
    root: State,
    mounts: Vec<(String, Option<State>)>,
}

impl ExecState {
    /// The root file system after the run (of a read-only root: as it was), with the settings of the state that was run on.
    pub fn root(&self) -> &State {
        &self.root
    }

    /// What is mounted at `target` after the run. None: no such mount, or one whose changes are dropped.
    pub fn mount(&self, target: &str) -> Option<&State> {
        self.mounts.iter().find(|(path, _)| path == target)?.1.as_ref()
    }
}

/// What becomes of a mount.
enum After {
    Output(usize),
    AsBefore,
    Dropped,
}

impl State {
    /// Runs a process with this state as its root.
    pub fn run(&self, info: RunInfo, mut constraints: Constraints) -> Result<ExecState, Error> {
        let settings = self.settings();
        if info.args.is_empty() {
            return Err(Error::Incomplete("arguments are required"));
        }
        if settings.dir.is_empty() {
            return Err(Error::Incomplete("working directory is required"));
        }
        if constraints.platform.is_none() {
            constraints.platform.clone_from(&settings.platform);
        }

        let root = MountInfo { readonly: info.readonly_root, ..MountInfo::bind(ROOT_MOUNT, self.clone()) };
        let mut infos = vec![root];
        infos.extend(info.mounts);
        // The order of mounts is part of the digest.
        infos.sort_by(|a, b| a.target.cmp(&b.target));

        let (mut deps, mut mounts, mut after) = (Vec::new(), Vec::new(), Vec::new());
        let mut outputs = 0;
        for info in &infos {
            let (mount, fate) = lower(info, &mut deps, &mut outputs)?;
            mounts.push(mount);
            after.push(fate);
        }

        let mut env = settings.env.clone();
        let mut ssh = Vec::new();
        for (index, agent) in info.ssh.iter().enumerate() {
            let target = agent.target.clone().filter(|target| !target.is_empty());
            let dest = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{index}"));
            if index == 0 {
                env.set_default("SSH_AUTH_SOCK", &dest);
            }
            ssh.push(Mount {
                dest,
                kind: MountKind::Ssh(SshMount {
                    id: agent.id.clone(),
                    uid: agent.uid,
                    gid: agent.gid,
                    mode: agent.mode,
                    optional: agent.optional,
                }),
                ..Mount::default()
            });
        }
        let secret_env = info.secrets.iter().filter_map(|secret| {
            let name = secret.env.clone()?;
            Some(SecretEnv { id: secret.id.clone(), name, optional: secret.optional })
        });
        let secret_env: Vec<SecretEnv> = secret_env.collect();
        mounts.extend(info.secrets.iter().filter_map(|secret| {
            Some(Mount {
                dest: secret.target.clone()?,
                kind: MountKind::Secret(SecretMount {
                    id: secret.id.clone(),
                    uid: secret.uid,
                    gid: secret.gid,
                    mode: secret.mode,
                    optional: secret.optional,
                }),
                ..Mount::default()
            })
        }));
        mounts.extend(ssh);

        let op = ExecOp {
            meta: Meta {
                args: info.args,
                env: env.to_vec(),
                cwd: settings.dir.clone(),
                user: settings.user.clone(),
                proxy_env: info.proxy_env,
                extra_hosts: settings.extra_hosts.clone(),
                hostname: settings.hostname.clone(),
                ulimits: settings.ulimits.clone(),
                cgroup_parent: settings.cgroup_parent.clone(),
                remove_mount_stubs_recursive: true,
                valid_exit_codes: settings.valid_exit_codes.clone(),
            },
            mounts,
            network: settings.network,
            security: settings.security,
            secret_env,
            devices: info.devices,
        };
        need(&op, &mut constraints);

        let node = Arc::new(Node { op: Op::Exec(Box::new(op)), deps, constraints });
        let states = infos.iter().zip(after).map(|(info, after)| {
            let state = match after {
                After::Output(index) => Some(
                    info.source.with_output(Some(Output(OutputKind::Node { node: node.clone(), index }))),
                ),
                After::AsBefore => Some(info.source.clone()),
                After::Dropped => None,
            };
            (info.target.clone(), state)
        });
        let mounts: Vec<(String, Option<State>)> = states.collect();
        let root = mounts.iter().find(|(path, _)| path == ROOT_MOUNT).and_then(|(_, state)| state.clone());
        let root = root.ok_or(Error::Incomplete("root mount without result"))?;
        Ok(ExecState { root, mounts })
    }
}

/// One mount of the operation, whose input number counts `deps`.
fn lower(info: &MountInfo, deps: &mut Vec<Output>, outputs: &mut usize) -> Result<(Mount, After), Error> {
    let input = match (info.source.output(), &info.kind) {
        (None, _) => None,
        (Some(_), MountKind::Tmpfs { .. }) => return Err(Error::Incomplete("tmpfs mounts must use scratch")),
        (Some(output), _) => {
            deps.push(output.clone());
            Some(deps.len() - 1)
        }
    };
    let after = match &info.kind {
        MountKind::Secret(_) | MountKind::Ssh(_) => {
            return Err(Error::Incomplete("secrets and agents are no mounts of a state"));
        }
        MountKind::Bind | MountKind::Cache(_) if info.readonly => After::AsBefore,
        MountKind::Bind if !info.no_output => {
            *outputs += 1;
            After::Output(*outputs - 1)
        }
        _ => After::Dropped,
    };
    let mount = Mount {
        input,
        selector: info.selector.clone(),
        dest: info.target.clone(),
        output: if let After::Output(index) = after { Some(index) } else { None },
        readonly: info.readonly,
        kind: info.kind.clone(),
        result_id: String::new(),
        content_cache: info.content_cache,
    };
    Ok((mount, after))
}

/// The capabilities that the operation needs.
fn need(op: &ExecOp, constraints: &mut Constraints) {
    constraints.need(caps::EXEC_META_BASE);
    constraints.need(caps::EXEC_META_SETSDEFAULTPATH);
    if !op.meta.valid_exit_codes.is_empty() {
        constraints.need(caps::EXEC_VALIDEXITCODE);
    }
    if !op.meta.ulimits.is_empty() {
        constraints.need(caps::EXEC_META_ULIMIT);
    }
    if !op.meta.cgroup_parent.is_empty() {
        constraints.need(caps::EXEC_META_CGROUP_PARENT);
    }
    if constraints.metadata.linux_resources.is_some() {
        constraints.need(caps::EXEC_META_LINUX_RESOURCES);
    }
    if op.network != NetMode::Sandbox {
        constraints.need(caps::EXEC_META_NETWORK);
    }
    if op.security != SecurityMode::Sandbox {
        constraints.need(caps::EXEC_META_SECURITY);
    }
    if op.meta.proxy_env.is_some() {
        constraints.need(caps::EXEC_META_PROXYENV);
    }
    if !op.secret_env.is_empty() {
        constraints.need(caps::EXEC_SECRETENV);
        constraints.need(caps::EXEC_MOUNT_SECRET);
    }
    if !op.devices.is_empty() {
        constraints.need(caps::EXEC_META_CDI);
    }
    for mount in &op.mounts {
        if !mount.selector.is_empty() {
            constraints.need(caps::EXEC_MOUNT_SELECTOR);
        }
        if mount.content_cache != ContentCache::Default {
            constraints.need(caps::EXEC_MOUNT_CACHE_CONTENT);
        }
        match &mount.kind {
            MountKind::Bind if mount.input.is_some() => constraints.need(caps::EXEC_MOUNT_BIND),
            MountKind::Bind => {}
            MountKind::Cache(_) => {
                constraints.need(caps::EXEC_MOUNT_CACHE);
                constraints.need(caps::EXEC_MOUNT_CACHE_SHARING);
            }
            MountKind::Tmpfs { size } => {
                constraints.need(caps::EXEC_MOUNT_TMPFS);
                if *size > 0 {
                    constraints.need(caps::EXEC_MOUNT_TMPFS_SIZE);
                }
            }
            MountKind::Secret(_) => constraints.need(caps::EXEC_MOUNT_SECRET),
            MountKind::Ssh(_) => constraints.need(caps::EXEC_MOUNT_SSH),
        }
    }
}
