//! Containers that a frontend runs processes in, beside the graph.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_exec::{ExecProcess, ExitStatus, MountSource, Process, SecurityMode, Stdio, Step};
use kiln_llb::{Mount, NetMode, SecretEnv};
use kiln_oci::Platform;
use kiln_proto::fsutil_types::Stat;
use kiln_session::daemon::SessionGroup;
use kiln_store::Ref;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::error::{Error, Result};
use crate::files::{self, FileRange};
use crate::ops::exec::{DEFAULT_PATH, add_default, extra_hosts, net_mode};
use crate::ops::mounts::{Prepared, Request, View};

/// Largest file that is read out of a container at once.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What a container is made of.
pub struct ContainerRequest {
    /// Letters and digits; unique among running ones.
    pub id: String,
    pub network: NetMode,
    pub hostname: String,
    /// Names with addresses.
    pub extra_hosts: Vec<(String, String)>,
    /// Their inputs count `refs`.
    pub mounts: Vec<Mount>,
    pub refs: Vec<Ref>,
    pub platform: Option<Platform>,
    pub sessions: SessionGroup,
}

/// A process of a container.
#[derive(Clone, Debug, Default)]
pub struct ContainerProcess {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    /// Empty is `/`.
    pub cwd: String,
    pub tty: bool,
    pub insecure: bool,
    pub secret_env: Vec<SecretEnv>,
    pub remove_mount_stubs_recursive: bool,
}

/// A container. Its first process starts it, and its end is the end of all others.
pub struct Container {
    worker: Worker,
    request: ContainerRequest,
    prepared: Mutex<Option<Prepared>>,
    views: Vec<View>,
    root: kiln_exec::RootMount,
    mounts: Vec<kiln_exec::StepMount>,
    started: AtomicBool,
    /// Ends everything in it.
    cancel: CancellationToken,
}

impl Worker {
    /// Prepares a container. Nothing runs yet. Refs must be unpacked.
    ///
    /// # Errors
    /// A mount that can't be made.
    pub async fn new_container(&self, request: ContainerRequest) -> Result<Container> {
        let prepared = self
            .prepare_mounts(&Request {
                mounts: &request.mounts,
                inputs: &request.refs,
                cwd: "",
                sessions: &request.sessions,
                origin: &format!("container {}", request.id),
            })
            .await?;
        Ok(Container {
            worker: self.clone(),
            views: prepared.views.clone(),
            root: prepared.root.clone(),
            mounts: prepared.mounts.clone(),
            prepared: Mutex::new(Some(prepared)),
            request,
            started: AtomicBool::new(false),
            cancel: CancellationToken::new(),
        })
    }
}

impl Container {
    /// Runs a process to its end: the first one is the container's own, later ones join it. `started` fires when it
    /// has been executed.
    ///
    /// # Errors
    /// What the executor says; [`kiln_exec::Error::Exit`] for an exit code that is not 0.
    pub async fn run(
        &self,
        process: ContainerProcess,
        stdio: Stdio,
        started: Option<oneshot::Sender<()>>,
        cancel: CancellationToken,
    ) -> Result<ExitStatus> {
        let mut env = process.env.clone();
        add_default(&mut env, "PATH", DEFAULT_PATH);
        if process.tty {
            add_default(&mut env, "TERM", "xterm");
        }
        env.extend(self.worker.secret_variables(&process.secret_env, &self.request.sessions).await?);
        let cwd = if process.cwd.is_empty() { "/".to_owned() } else { process.cwd.clone() };
        let either = self.cancel.child_token();
        let linked = either.clone();
        let _watch = AbortOnDrop(tokio::spawn(async move {
            cancel.cancelled().await;
            linked.cancel();
        }));
        if self.started.swap(true, Ordering::AcqRel) {
            let process = ExecProcess {
                args: process.args,
                env,
                cwd,
                user: process.user,
                tty: process.tty,
                valid_exit_codes: Vec::new(),
            };
            if let Some(started) = started {
                let _ = started.send(());
            }
            return Ok(self.worker.executor().exec(&self.request.id, process, stdio, either).await?);
        }
        let hosts = self.request.extra_hosts.iter().map(|(host, ip)| (host.as_str(), ip.as_str()));
        let platform = self.worker.platform_of(self.request.platform.as_ref());
        let step = Step {
            id: self.request.id.clone(),
            process: Process { args: process.args, env, cwd, user: process.user, tty: process.tty },
            hostname: self.request.hostname.clone(),
            rootfs: self.root.clone(),
            mounts: self.mounts.clone(),
            network: net_mode(self.request.network),
            security: if process.insecure { SecurityMode::Insecure } else { SecurityMode::Sandbox },
            extra_hosts: extra_hosts(hosts)?,
            ulimits: Vec::new(),
            shm_size_bytes: 0,
            cgroup_parent: String::new(),
            resources: kiln_exec::Resources::default(),
            valid_exit_codes: Vec::new(),
            platform: Some(kiln_exec::Arch::new(platform.architecture, platform.variant)),
            remove_mount_stubs_recursive: process.remove_mount_stubs_recursive,
        };
        Ok(self.worker.executor().run(step, stdio, started, either).await?)
    }

    /// A file of mount number `mount`, as it is now.
    ///
    /// # Errors
    /// Nothing there, no file, too large.
    pub async fn read_file(
        &self,
        mount: usize,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<bytes::Bytes> {
        let (union, path) = (self.view(mount)?, path.to_owned());
        self.worker.blocking(move || files::read(&union, &path, range, FILE_BYTES_MAX)).await?
    }

    /// What is in a folder of mount number `mount`, as it is now.
    ///
    /// # Errors
    /// Nothing there, no folder.
    pub async fn read_dir(&self, mount: usize, path: &str, include_pattern: &str) -> Result<Vec<Stat>> {
        let (union, path, pattern) = (self.view(mount)?, path.to_owned(), include_pattern.to_owned());
        self.worker.blocking(move || files::list(&union, &path, &pattern)).await?
    }

    /// What is at a path of mount number `mount`, as it is now.
    ///
    /// # Errors
    /// Nothing there.
    pub async fn stat_file(&self, mount: usize, path: &str) -> Result<Stat> {
        let (union, path) = (self.view(mount)?, path.to_owned());
        self.worker.blocking(move || files::stat(&union, &path)).await?
    }

    /// The layers of a mount, what its processes wrote on top.
    fn view(&self, mount: usize) -> Result<kiln_layer::union::Union> {
        let missing = || Error::Text(format!("mount index {mount} cannot be read"));
        let Some(View::Mountable(source)) = self.views.get(mount) else { return Err(missing()) };
        let mut dirs = match source {
            MountSource::Overlay(overlay) => {
                let upper = overlay.upper.iter().map(|upper| upper.upper.clone());
                upper.chain(overlay.lower.iter().cloned()).collect::<Vec<_>>()
            }
            MountSource::Bind(bind) => vec![bind.path.clone()],
            MountSource::Tmpfs(_) | MountSource::Fd(_) => return Err(missing()),
        };
        // A mount names the topmost first.
        dirs.reverse();
        Ok(kiln_layer::union::Union::open(&dirs, self.worker.store().format())?)
    }

    /// Ends its processes. What they wrote goes when the container is dropped.
    pub fn stop(&self) {
        self.cancel.cancel();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.cancel.cancel();
        drop(self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
