//! The seam between the executor and who runs OCI specs.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespaceType, Process as SpecProcess};

use crate::beneath::Root;
use crate::bundle::Bundle;
use crate::embedded::{self, Embedded, Joinable};
use crate::oci_runtime::{Kind, OciChild, OciRuntime};
use crate::streams::ChildEnds;
use crate::{Error, ExecProcess, ExecutorConfig, Result, Runtime, user};

pub enum RuntimeBackend {
    Embedded(Embedded),
    Program(OciRuntime),
}

/// A process that a runtime has started.
pub enum Process {
    Embedded(embedded::Started),
    Program(OciChild),
}

/// A container as [`RuntimeBackend::join`] needs it.
pub struct RunningContainer {
    id: String,
    /// The first process, whose settings are the defaults of further ones.
    process: SpecProcess,
    /// For looking users up.
    root: OwnedFd,
    joinable: Option<Joinable>,
}

impl RuntimeBackend {
    pub async fn open(config: &ExecutorConfig) -> Result<Self> {
        match &config.runtime {
            Runtime::Embedded => {
                let own = || {
                    std::env::current_exe().map_err(|source| Error::Io { what: "find own program", source })
                };
                let program = config.helper.clone().map_or_else(own, Ok)?;
                let embedded = Embedded::new(program, config.state_dir.join("attach"))?;
                embedded.warm_up().await?;
                Ok(Self::Embedded(embedded))
            }
            Runtime::Crun(path) => {
                OciRuntime::open(path, Kind::Crun, &config.state_dir).await.map(Self::Program)
            }
            Runtime::Runc(path) => {
                OciRuntime::open(path, Kind::Runc, &config.state_dir).await.map(Self::Program)
            }
        }
    }

    pub async fn start(&self, bundle: &mut Bundle, ends: ChildEnds) -> Result<Process> {
        match self {
            Self::Embedded(embedded) => embedded.start(bundle, ends).await.map(Process::Embedded),
            Self::Program(program) => program.start(bundle, ends).map(Process::Program),
        }
    }

    pub fn running(&self, bundle: &Bundle, process: &Process) -> Result<Arc<RunningContainer>> {
        let failed = |source| Error::Io { what: "refer to a container", source };
        let joinable = match process {
            Process::Embedded(started) => Some(joinable(bundle, started).map_err(failed)?),
            Process::Program(_) => None,
        };
        Ok(Arc::new(RunningContainer {
            id: bundle.id.clone(),
            process: bundle.spec.process().clone().ok_or(Error::NoArguments)?,
            root: bundle.root.try_clone().map_err(failed)?,
            joinable,
        }))
    }

    pub async fn join(
        &self,
        container: &RunningContainer,
        wanted: &ExecProcess,
        ends: ChildEnds,
    ) -> Result<Process> {
        let mut process = container.process.clone();
        process.set_args(Some(wanted.args.clone()));
        process.set_terminal(Some(wanted.tty));
        if !wanted.cwd.is_empty() {
            process.set_cwd(wanted.cwd.clone().into());
        }
        if !wanted.env.is_empty() {
            process.set_env(Some(wanted.env.clone()));
        }
        if !wanted.user.is_empty() {
            let user = user::lookup(&Root::new(container.root.as_fd()), &wanted.user)?;
            let ids = oci_spec::runtime::UserBuilder::default().uid(user.uid).gid(user.gid);
            process.set_user(ids.additional_gids(user.groups).build()?);
        }
        match (self, &container.joinable) {
            (Self::Embedded(embedded), Some(joinable)) => {
                embedded.join(joinable, &process, ends).await.map(Process::Embedded)
            }
            (Self::Program(program), _) => program.join(&container.id, &process, ends).map(Process::Program),
            _ => Err(Error::ContainerNotFound { id: container.id.clone() }),
        }
    }

    /// After the first process has ended: takes apart what the runtime has put together.
    pub async fn release(&self, bundle: &mut Bundle) {
        if let Self::Program(program) = self {
            program.release(&bundle.id).await;
        }
    }
}

fn joinable(bundle: &Bundle, started: &embedded::Started) -> std::io::Result<Joinable> {
    let linux = bundle.spec.linux().as_ref();
    let kinds = linux.and_then(|l| l.namespaces().as_ref()).into_iter().flatten().map(|n| n.typ());
    let flags =
        kinds.filter(|t| *t != LinuxNamespaceType::Pid).fold(0, |all, t| all | embedded::clone_flag(t));
    let cgroup = bundle.cgroup.as_ref();
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned();
    Ok(Joinable {
        pidfd: started.pidfd.clone(),
        namespaces: flags as u32,
        seccomp: linux.and_then(|l| l.seccomp().clone()),
        emulator: bundle.emulator.as_ref().map(|_| embedded::EMULATOR_PATH.to_owned()),
        cgroup: cgroup.and_then(|c| c.unified_fd()).map(own).transpose()?,
        join_cgroups: cgroup
            .into_iter()
            .flat_map(|c| c.old())
            .map(|(_, _, fd)| own(fd))
            .collect::<Result<_, _>>()?,
    })
}

impl Process {
    pub async fn wait(&mut self) -> Result<u32> {
        match self {
            Self::Embedded(started) => started.process.wait().await,
            Self::Program(child) => child.wait().await,
        }
    }

    pub fn signal(&self, signal: i32) {
        match self {
            Self::Embedded(started) => started.process.signal(signal),
            Self::Program(child) => child.signal(signal),
        }
    }

    /// The terminal has a new size.
    pub fn resized(&self) {
        // In the embedded runtime it is the process's own, and the kernel tells it.
        if let Self::Program(child) = self {
            child.signal(libc::SIGWINCH);
        }
    }

    /// Ends the process for sure; with a container's first process everything in it.
    pub async fn kill(&self) {
        match self {
            Self::Embedded(started) => started.process.signal(libc::SIGKILL),
            Self::Program(child) => child.kill().await,
        }
    }

    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        match self {
            Self::Embedded(started) => started.terminal.take(),
            Self::Program(child) => child.take_terminal(),
        }
    }

    /// Why the program of the step could not be executed, where the runtime does not say so itself.
    pub fn exec_error(&self) -> Option<&str> {
        match self {
            Self::Embedded(started) => started.exec_error.as_deref(),
            Self::Program(_) => None,
        }
    }
}
