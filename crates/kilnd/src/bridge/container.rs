//! Containers that a frontend or a client starts beside the graph.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_exec::{Control, Stdio, WinSize};
use kiln_frontend::{
    Container, ContainerRequest, Error, FileRange, Process, ProcessEnd, ProcessIo, ProcessRequest, WindowSize,
};
use kiln_proto::{fsutil_types, pb};
use kiln_worker::{BuildContext, ContainerProcess, Entitlements, Worker};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Promise, of_worker};

/// Signals and sizes that wait to reach a process.
const CONTROLS: usize = 16;

/// Bound of the output numbers of a container's mounts, which have no meaning.
const OUTPUTS_MAX: usize = 128;

/// A container that is prepared; its processes are started one by one.
struct Started {
    container: Arc<kiln_worker::Container>,
    entitlements: Entitlements,
}

/// A process, with what leads to it.
struct Running {
    end: watch::Receiver<Option<Result<ProcessEnd, Error>>>,
    control: mpsc::Sender<Control>,
    /// Ends the process when nobody holds it any more.
    _cancel: tokio_util::sync::DropGuard,
}

/// Prepares a container: its refs are solved and unpacked first.
pub(super) async fn start(
    worker: &Worker,
    build: &BuildContext,
    request: ContainerRequest<Promise>,
) -> Result<Box<dyn Container>, Error> {
    let (sessions, entitlements) = (build.sessions(), build.entitlements());
    if request.network == pb::NetMode::Host && !entitlements.network_host {
        return Err(of_worker(kiln_worker::Error::Entitlement("network.host")));
    }
    let mut refs = Vec::new();
    let mut mounts = Vec::new();
    for asked in request.mounts {
        let mut mount = asked.mount;
        mount.input = match asked.reference {
            None => -1,
            Some(promise) => {
                let reference = promise.result().await?.into_output();
                worker.unpack(&reference, sessions, None).await.map_err(of_worker)?;
                refs.push(reference);
                i64::try_from(refs.len() - 1).unwrap_or(-1)
            }
        };
        mounts.push(
            kiln_llb::Mount::from_pb(mount, refs.len(), OUTPUTS_MAX).map_err(|error| Error::of(&error))?,
        );
    }
    let container = worker
        .new_container(kiln_worker::ContainerRequest {
            id: request.id,
            network: net_mode(request.network),
            hostname: request.hostname,
            extra_hosts: request.extra_hosts.into_iter().map(|host| (host.host, host.ip)).collect(),
            mounts,
            refs,
            platform: request.platform,
            sessions: sessions.clone(),
        })
        .await
        .map_err(of_worker)?;
    Ok(Box::new(Started { container: Arc::new(container), entitlements }))
}

fn net_mode(mode: pb::NetMode) -> kiln_llb::NetMode {
    match mode {
        pb::NetMode::Unset => kiln_llb::NetMode::Sandbox,
        pb::NetMode::Host => kiln_llb::NetMode::Host,
        pb::NetMode::None => kiln_llb::NetMode::None,
    }
}

fn range_of(range: Option<FileRange>) -> Option<kiln_worker::FileRange> {
    range.map(|range| kiln_worker::FileRange { offset: range.offset, length: range.length })
}

#[async_trait]
impl Container for Started {
    async fn start(&self, request: ProcessRequest, io: ProcessIo) -> Result<Box<dyn Process>, Error> {
        let insecure = request.security == pb::SecurityMode::Insecure;
        if insecure && !self.entitlements.security_insecure {
            return Err(of_worker(kiln_worker::Error::Entitlement("security.insecure")));
        }
        let process = ContainerProcess {
            args: request.args,
            env: request.env,
            user: request.user,
            cwd: request.cwd,
            tty: request.tty,
            insecure,
            secret_env: request
                .secret_env
                .into_iter()
                .map(|secret| kiln_llb::SecretEnv {
                    id: secret.id,
                    name: secret.name,
                    optional: secret.optional,
                })
                .collect(),
            remove_mount_stubs_recursive: request.remove_mount_stubs_recursive,
        };
        let (control, controls) = mpsc::channel(CONTROLS);
        let stdio = Stdio { stdin: io.stdin, stdout: io.stdout, stderr: io.stderr, control: Some(controls) };
        let (tell_end, mut end) = watch::channel(None);
        let (tell_started, started) = oneshot::channel();
        let cancel = CancellationToken::new();
        let (container, token) = (self.container.clone(), cancel.clone());
        tokio::spawn(async move {
            let done = container.run(process, stdio, Some(tell_started), token).await;
            let told = match done {
                Ok(status) => Ok(ProcessEnd { code: status.code, error: None }),
                Err(kiln_worker::Error::Exec(error)) => Ok(ProcessEnd {
                    code: error.exit_code(),
                    error: Some(Error::of(&error).message().to_owned()),
                }),
                Err(error) => Err(of_worker(error)),
            };
            let _ = tell_end.send(Some(told));
        });
        tokio::select! {
            biased;
            _ = started => {}
            _ = end.changed() => {}
        }
        Ok(Box::new(Running { end, control, _cancel: cancel.drop_guard() }))
    }

    async fn read_file(&self, mount: usize, path: &str, range: Option<FileRange>) -> Result<Bytes, Error> {
        self.container.read_file(mount, path, range_of(range)).await.map_err(of_worker)
    }

    async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        include_pattern: &str,
    ) -> Result<Vec<fsutil_types::Stat>, Error> {
        self.container.read_dir(mount, path, include_pattern).await.map_err(of_worker)
    }

    async fn stat_file(&self, mount: usize, path: &str) -> Result<fsutil_types::Stat, Error> {
        self.container.stat_file(mount, path).await.map_err(of_worker)
    }

    async fn release(&self) -> Result<(), Error> {
        self.container.stop();
        Ok(())
    }
}

impl Running {
    async fn send(&self, control: Control) -> Result<(), Error> {
        // A process that has ended hears nothing any more.
        let _ = self.control.send(control).await;
        Ok(())
    }
}

#[async_trait]
impl Process for Running {
    async fn wait(&self) -> Result<ProcessEnd, Error> {
        let mut end = self.end.clone();
        let done = end.wait_for(Option::is_some).await;
        match done.as_deref() {
            Ok(Some(told)) => told.clone(),
            _ => Err(Error::cancelled()),
        }
    }

    async fn signal(&self, signal: i32) -> Result<(), Error> {
        self.send(Control::Signal(signal)).await
    }

    async fn resize(&self, size: WindowSize) -> Result<(), Error> {
        let limit = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        self.send(Control::Resize(WinSize { rows: limit(size.rows), cols: limit(size.columns) })).await
    }
}
