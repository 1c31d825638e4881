//! The executor: configuration, start and end of a step.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::bundle::{Bundle, Surroundings};
use crate::cgroup::Cgroups;
use crate::error::at;
use crate::network::{Networks, Providers};
use crate::runtime::{Process, RunningContainer, RuntimeBackend};
use crate::stdio::Control;
use crate::streams::Pump;
use crate::{Error, ExecProcess, Result, Stdio, Step, emulation};

/// Who runs the OCI spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// This program, executed again (see [`crate::reexec`]).
    #[default]
    Embedded,
    /// `crun` at this path.
    Crun(PathBuf),
    /// `runc`, or a program with its command line, at this path.
    Runc(PathBuf),
}

/// `[dns]` of `buildkitd.toml`; empty fields keep what the host has.
#[derive(Clone, Debug, Default)]
pub struct Dns {
    pub nameservers: Vec<IpAddr>,
    pub options: Vec<String>,
    pub search_domains: Vec<String>,
}

/// Settings of an executor.
#[derive(Clone, Debug)]
pub struct ExecutorConfig {
    /// Directory of its own: generated files and bundles. Created when missing; leftovers of a dead daemon are swept.
    pub state_dir: PathBuf,
    pub runtime: Runtime,
    /// Program of the embedded runtime's helper, whose `main` calls [`crate::reexec::dispatch`] first; `None` is this one.
    pub helper: Option<PathBuf>,
    /// The daemon is root of a user namespace only ([`crate::userns`]); `None` means real root.
    pub rootless: Option<crate::userns::Mapping>,
    /// Parent of the steps' cgroups (`/name`, or `x.slice:prefix:` for a manager); empty is the root.
    pub cgroup_parent: String,
    pub dns: Dns,
    pub network: Providers,
    /// AppArmor profile of the steps; `None` is unconfined.
    pub apparmor_profile: Option<String>,
    pub oom_score_adj: Option<i32>,
    /// Directories searched for emulators (`qemu-aarch64-static`, `buildkit-qemu-aarch64`).
    pub emulator_dirs: Vec<PathBuf>,
}

impl ExecutorConfig {
    /// Defaults for everything but the state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            runtime: Runtime::default(),
            helper: None,
            rootless: None,
            cgroup_parent: String::new(),
            dns: Dns::default(),
            network: Providers::default(),
            apparmor_profile: None,
            oom_score_adj: None,
            emulator_dirs: emulation::default_dirs(),
        }
    }
}

/// How a process ended, when that counts as success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code, or 128 + the signal that ended it.
    pub code: u32,
}

/// Runs steps. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    config: ExecutorConfig,
    cgroups: Arc<Cgroups>,
    networks: Networks,
    backend: RuntimeBackend,
    dirs: Dirs,
    containers: Mutex<HashMap<String, watch::Receiver<State>>>,
}

/// What is in the state directory.
struct Dirs {
    /// `hosts` and `resolv.conf` files.
    files: PathBuf,
    /// Empty; something is mounted there for moments.
    scratch: PathBuf,
    stub_layer: PathBuf,
}

#[derive(Clone)]
enum State {
    Starting,
    Running(Arc<RunningContainer>),
    Stopped,
}

impl Executor {
    /// Prepares the state directory, sweeps what a dead daemon left and starts the embedded runtime.
    pub async fn new(config: ExecutorConfig) -> Result<Self> {
        let files = config.state_dir.join("files");
        let scratch = config.state_dir.join("scratch");
        let stub_layer = config.state_dir.join("stub-layer");
        // Files of steps that a dead daemon did not end.
        if files.exists() {
            std::fs::remove_dir_all(&files).map_err(at("clear", &files))?;
        }
        for dir in [&config.state_dir, &files, &scratch] {
            std::fs::DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(at("create", dir))?;
        }
        crate::bundle::make_stub_layer(&stub_layer).map_err(at("create", &stub_layer))?;
        let cgroups = Cgroups::open(&config.state_dir, &config.cgroup_parent, config.rootless.is_some());
        let backend = RuntimeBackend::open(&config).await?;
        let networks = Networks::open(&config.network)?;
        let dirs = Dirs { files, scratch, stub_layer };
        let inner = Inner { config, cgroups, networks, backend, dirs, containers: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs a step to its end. `started` fires when its process has been executed. On cancellation, also by dropping the
    /// future, everything in the step is killed; the call returns when nothing of it is left.
    ///
    /// # Errors
    /// [`Error::Exit`] for an exit code that is not among the valid ones, [`Error::Cancelled`] after cancellation.
    pub async fn run(
        &self,
        mut step: Step,
        stdio: Stdio,
        started: Option<oneshot::Sender<()>>,
        cancel: CancellationToken,
    ) -> Result<ExitStatus> {
        if step.id.is_empty() {
            step.id = crate::id::random();
        }
        crate::id::check(&step.id)?;
        if step.process.args.is_empty() {
            return Err(Error::NoArguments);
        }
        let registration = self.inner.register(&step.id)?;
        let cancel = cancel.child_token();
        let _cancel_on_drop = cancel.clone().drop_guard();
        let inner = self.inner.clone();
        // A task of its own, so that the way back is walked to its end even when nobody waits for it.
        let task = tokio::spawn(async move { inner.run(step, stdio, started, cancel, registration).await });
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Runs a further process in the container `id`, waiting for the container to be there if its start is under way.
    ///
    /// # Errors
    /// As [`Executor::run`]; and when there is no such container, or it has ended.
    pub async fn exec(
        &self,
        id: &str,
        process: ExecProcess,
        stdio: Stdio,
        cancel: CancellationToken,
    ) -> Result<ExitStatus> {
        let not_found = || Error::ContainerNotFound { id: id.to_owned() };
        let mut state = self.inner.containers().get(id).cloned().ok_or_else(not_found)?;
        let container = tokio::select! {
            running = state.wait_for(|s| !matches!(s, State::Starting)) => match running.as_deref() {
                Ok(State::Running(container)) => container.clone(),
                _ => return Err(Error::ContainerStopped { id: id.to_owned() }),
            },
            () = cancel.cancelled() => return Err(Error::Cancelled { code: u32::MAX }),
        };
        let cancel = cancel.child_token();
        let _cancel_on_drop = cancel.clone().drop_guard();
        let inner = self.inner.clone();
        let task = tokio::spawn(async move { inner.exec(&container, process, stdio, cancel).await });
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// Takes a container out of the list when its run is over.
struct Registration {
    inner: Arc<Inner>,
    id: String,
    state: watch::Sender<State>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.state.send_replace(State::Stopped);
        self.inner.containers().remove(&self.id);
    }
}

impl Inner {
    fn containers(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Receiver<State>>> {
        self.containers.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn register(self: &Arc<Self>, id: &str) -> Result<Registration> {
        let mut containers = self.containers();
        if containers.contains_key(id) {
            return Err(Error::ContainerExists { id: id.to_owned() });
        }
        let (state, receiver) = watch::channel(State::Starting);
        containers.insert(id.to_owned(), receiver);
        drop(containers);
        Ok(Registration { inner: self.clone(), id: id.to_owned(), state })
    }

    async fn run(
        self: Arc<Self>,
        step: Step,
        mut stdio: Stdio,
        started: Option<oneshot::Sender<()>>,
        cancel: CancellationToken,
        registration: Registration,
    ) -> Result<ExitStatus> {
        let network = self.networks.namespace(step.network).await?;
        let valid = step.valid_exit_codes.clone();
        let tty = step.process.tty;
        let mut bundle = {
            let inner = self.clone();
            blocking(move || inner.prepare(step, network)).await?
        };
        let outcome = async {
            let pipes = |source| Error::Io { what: "make pipes for a step", source };
            let (pump, ends) = Pump::connect(&mut stdio, tty).map_err(pipes)?;
            let process = tokio::select! {
                process = self.backend.start(&mut bundle, ends) => process?,
                // Dropping the start kills what it has started.
                () = cancel.cancelled() => return Err(Error::Cancelled { code: u32::MAX }),
            };
            registration.state.send_replace(State::Running(self.backend.running(&bundle, &process)?));
            if let Some(started) = started {
                // Nobody has to listen.
                let _ = started.send(());
            }
            self.attend(process, pump, stdio.control.take(), &cancel).await
        }
        .await;
        // Whatever has happened: nothing runs any more, and the way back is the same.
        let oom = bundle.cgroup.as_ref().is_some_and(|cgroup| cgroup.had_oom_kill());
        self.backend.release(&mut bundle).await;
        let cgroup = blocking(move || Ok(bundle.finish())).await?;
        if let Some(cgroup) = cgroup {
            cgroup.remove().await;
        }
        drop(registration);
        judge(outcome?, &valid, oom, &cancel)
    }

    async fn exec(
        &self,
        container: &RunningContainer,
        process: ExecProcess,
        mut stdio: Stdio,
        cancel: CancellationToken,
    ) -> Result<ExitStatus> {
        if process.args.is_empty() {
            return Err(Error::NoArguments);
        }
        let valid = process.valid_exit_codes.clone();
        let pipes = |source| Error::Io { what: "make pipes for a process", source };
        let (pump, ends) = Pump::connect(&mut stdio, process.tty).map_err(pipes)?;
        let process = tokio::select! {
            process = self.backend.join(container, &process, ends) => process?,
            () = cancel.cancelled() => return Err(Error::Cancelled { code: u32::MAX }),
        };
        let code = self.attend(process, pump, stdio.control.take(), &cancel).await?;
        judge(code, &valid, false, &cancel)
    }

    /// Stays with a process until it has ended and all its output is through.
    async fn attend(
        &self,
        mut process: Process,
        mut pump: Pump,
        mut control: Option<tokio::sync::mpsc::Receiver<Control>>,
        cancel: &CancellationToken,
    ) -> Result<u32> {
        if let Some(terminal) = process.take_terminal() {
            let failed = |source| Error::Io { what: "attach a terminal", source };
            pump.connect_terminal(terminal).map_err(failed)?;
        }
        let mut killed = false;
        let code = loop {
            let next = async {
                match control.as_mut() {
                    Some(control) => control.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                code = process.wait() => break code?,
                () = cancel.cancelled(), if !killed => {
                    killed = true;
                    process.kill().await;
                }
                message = next => match message {
                    Some(Control::Signal(libc::SIGKILL)) => process.kill().await,
                    Some(Control::Signal(signal)) => process.signal(signal),
                    Some(Control::Resize(size)) => {
                        pump.resize(size);
                        process.resized();
                    }
                    None => control = None,
                },
            }
        };
        let words = process.exec_error().map(|error| format!("unable to start container process: {error}\n"));
        pump.finish(words.as_deref()).await;
        Ok(code)
    }

    fn prepare(&self, step: Step, network: crate::network::Namespace) -> Result<Bundle> {
        let embedded = self.config.runtime == Runtime::Embedded;
        let emulation = match &step.platform {
            Some(platform) => emulation::for_step(platform, &self.config.emulator_dirs, embedded)?,
            None => None,
        };
        let surroundings = Surroundings {
            config: &self.config,
            cgroups: &self.cgroups,
            scratch: &self.dirs.scratch,
            files_dir: &self.dirs.files,
            stub_layer: &self.dirs.stub_layer,
            runtime_makes_cgroup: matches!(self.config.runtime, Runtime::Runc(_))
                && self.config.rootless.is_none(),
        };
        Bundle::prepare(&step, &surroundings, network, emulation)
    }
}

fn judge(code: u32, valid: &[i32], oom: bool, cancel: &CancellationToken) -> Result<ExitStatus> {
    let fine = if valid.is_empty() { code == 0 } else { valid.contains(&(code as i32)) };
    if fine {
        Ok(ExitStatus { code })
    } else if cancel.is_cancelled() {
        Err(Error::Cancelled { code })
    } else if oom {
        Err(Error::OutOfMemory { code })
    } else {
        Err(Error::Exit { code })
    }
}

/// Runs calls that block for a moment: mounts, small files.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
