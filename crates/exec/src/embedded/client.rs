//! The daemon's side of the embedded runtime.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccomp, Process};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::plan::{self, Enter, Fds, Plan};
use super::spawner::ARGV0;
use super::wire::{self, Event, PACKET_FDS_MAX, Parcel, Report, Request, Token};
use crate::bundle::Bundle;
use crate::streams::ChildEnds;
use crate::userns::IdRange;
use crate::{Error, Result, seccomp};

/// Starts steps by way of the spawner, which is started when it is first needed, and again when it has died.
pub struct Embedded {
    program: PathBuf,
    attach_dir: PathBuf,
    spawner: tokio::sync::Mutex<Option<Arc<Spawner>>>,
    /// The filter compiled last: nearly all steps have the same.
    filter: Mutex<Option<(LinuxSeccomp, Arc<Vec<u8>>)>>,
}

/// A process that has been executed, or that could not be.
pub struct Started {
    pub process: Child,
    /// The terminal's other side.
    pub terminal: Option<OwnedFd>,
    /// Why the process could not be executed; its exit follows.
    pub exec_error: Option<String>,
    /// Refers to the process.
    pub pidfd: Arc<OwnedFd>,
}

/// A child of the spawner. Dropping it kills the process.
pub struct Child {
    token: Token,
    spawner: Arc<Spawner>,
    exit: oneshot::Receiver<u32>,
    exited: bool,
}

/// What is needed to add processes to a running container.
pub struct Joinable {
    pub pidfd: Arc<OwnedFd>,
    pub namespaces: u32,
    pub seccomp: Option<LinuxSeccomp>,
    pub emulator: Option<String>,
    pub cgroup: Option<OwnedFd>,
    pub join_cgroups: Vec<OwnedFd>,
}

impl Child {
    /// Exit code, or 128 + the signal that ended it.
    pub async fn wait(&mut self) -> Result<u32> {
        let code = (&mut self.exit).await.map_err(|_| Error::HelperGone);
        self.exited = true;
        code
    }

    pub fn signal(&self, signal: i32) {
        self.spawner.signal(self.token, signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.exited {
            self.signal(libc::SIGKILL);
        }
    }
}

impl Embedded {
    /// `program` is one whose `main` calls [`crate::reexec::dispatch`]; `attach_dir` is an own directory.
    pub fn new(program: PathBuf, attach_dir: PathBuf) -> Result<Self> {
        for name in ["root", "scratch"] {
            let dir = attach_dir.join(name);
            std::fs::create_dir_all(&dir).map_err(crate::error::at("create", &dir))?;
        }
        Ok(Self { program, attach_dir, spawner: tokio::sync::Mutex::new(None), filter: Mutex::new(None) })
    }

    /// Has the spawner ready.
    pub async fn warm_up(&self) -> Result<()> {
        self.spawner().await.map(|_| ())
    }

    async fn spawner(&self) -> Result<Arc<Spawner>> {
        let mut current = self.spawner.lock().await;
        if let Some(spawner) = current.as_ref().filter(|s| s.is_alive()) {
            return Ok(spawner.clone());
        }
        let failed = |source| Error::Io { what: "start the embedded runtime", source };
        let spawner = Spawner::start(&self.program).map_err(failed)?;
        *current = Some(spawner.clone());
        Ok(spawner)
    }

    /// Starts the first process of a container and waits until it has been executed.
    pub async fn start(&self, bundle: &Bundle, ends: ChildEnds) -> Result<Started> {
        let mut fds = Fds::default();
        let failed = |source| Error::Io { what: "plan the step", source };
        let container = plan::container(bundle, &self.attach_dir, &mut fds).map_err(failed)?;
        let spec_process = bundle.spec.process().as_ref().ok_or(Error::NoArguments)?;
        let mut process = plan::process(spec_process).map_err(failed)?;
        process.emulator = bundle.emulator.as_ref().map(|_| plan::EMULATOR_PATH.to_owned());
        let stdio =
            [&ends.stdin, &ends.stdout, &ends.stderr].map(|end| end.as_ref().map(|e| fds.push(e.as_fd())));
        let old = bundle.cgroup.iter().flat_map(|c| c.old());
        let join_cgroups = old.map(|(_, _, procs)| fds.push(procs)).collect();
        let plan = Plan { enter: Enter::New(Box::new(container)), process, stdio, join_cgroups };
        let linux = bundle.spec.linux().as_ref();
        let filter = self.filter(linux.and_then(|l| l.seccomp().as_ref()))?;
        let mut namespaces = 0;
        for namespace in linux.and_then(|l| l.namespaces().as_ref()).into_iter().flatten() {
            // A cgroup namespace is made from inside; a namespace with a path is there already.
            if namespace.typ() != LinuxNamespaceType::Cgroup && namespace.path().is_none() {
                namespaces |= clone_flag(namespace.typ());
            }
        }
        let id_maps = linux.and_then(|l| Some((l.uid_mappings().as_ref()?, l.gid_mappings().as_ref()?)));
        let id_maps = id_maps.map(|(uids, gids)| {
            let text = |mappings: &[oci_spec::runtime::LinuxIdMapping]| {
                let range = |m: &oci_spec::runtime::LinuxIdMapping| IdRange {
                    inside: m.container_id(),
                    outside: m.host_id(),
                    count: m.size(),
                };
                crate::userns::map_text(&mappings.iter().map(range).collect::<Vec<_>>())
            };
            (text(uids), text(gids))
        });
        let spawner = self.spawner().await?;
        let cgroup = bundle.cgroup.as_ref().and_then(|c| c.unified_fd());
        let network = bundle.network.fd();
        let request = |token| Request::Spawn {
            token,
            namespaces,
            into_cgroup: cgroup.is_some(),
            into_network: network.is_some(),
            into_pid_namespace_of: false,
            id_maps,
        };
        let extra: Vec<_> = cgroup.into_iter().chain(network).collect();
        spawner.run(request, &extra, &plan, &filter, &fds.0).await
    }

    /// Starts a further process in a container.
    pub async fn join(&self, container: &Joinable, process: &Process, ends: ChildEnds) -> Result<Started> {
        let mut fds = Fds::default();
        let failed = |source| Error::Io { what: "plan the process", source };
        let enter =
            Enter::Join { process: fds.push(container.pidfd.as_fd()), namespaces: container.namespaces };
        let mut process = plan::process(process).map_err(failed)?;
        process.emulator = container.emulator.clone();
        let stdio =
            [&ends.stdin, &ends.stdout, &ends.stderr].map(|end| end.as_ref().map(|e| fds.push(e.as_fd())));
        let join_cgroups = container.join_cgroups.iter().map(|procs| fds.push(procs.as_fd())).collect();
        let plan = Plan { enter, process, stdio, join_cgroups };
        let filter = self.filter(container.seccomp.as_ref())?;
        let spawner = self.spawner().await?;
        let request = |token| Request::Spawn {
            token,
            namespaces: 0,
            into_cgroup: container.cgroup.is_some(),
            into_network: false,
            into_pid_namespace_of: true,
            id_maps: None,
        };
        let extra: Vec<_> =
            container.cgroup.iter().map(AsFd::as_fd).chain([container.pidfd.as_fd()]).collect();
        spawner.run(request, &extra, &plan, &filter, &fds.0).await
    }

    fn filter(&self, seccomp: Option<&LinuxSeccomp>) -> Result<Arc<Vec<u8>>> {
        let Some(wanted) = seccomp else { return Ok(Arc::default()) };
        let mut cached = self.filter.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((profile, bytes)) = cached.as_ref()
            && profile == wanted
        {
            return Ok(bytes.clone());
        }
        let failed = |source| Error::Io { what: "compile the system call filter", source };
        let program = seccomp::compile(wanted).map_err(failed)?;
        let bytes = Arc::new(program.into_iter().flat_map(|i| i.to_bytes()).collect::<Vec<u8>>());
        *cached = Some((wanted.clone(), bytes.clone()));
        Ok(bytes)
    }
}

/// `CLONE_NEW*` of a kind of namespace.
pub fn clone_flag(typ: LinuxNamespaceType) -> u64 {
    let flag = match typ {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => 0x80,
    };
    flag as u64
}

/// A running spawner.
struct Spawner {
    control: AsyncFd<OwnedFd>,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    last: Token,
    dead: bool,
    spawned: HashMap<Token, oneshot::Sender<Result<OwnedFd>>>,
    exited: HashMap<Token, oneshot::Sender<u32>>,
}

impl Spawner {
    fn start(program: &Path) -> io::Result<Arc<Self>> {
        let (ours, theirs) = wire::pair()?;
        let image = sealed_program(program)?;
        let mut child = Command::new(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&image)))
            .arg0(ARGV0)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let spawner = Arc::new(Self { control: crate::sys::async_fd(ours)?, waiting: Mutex::default() });
        let events = spawner.clone();
        tokio::spawn(async move {
            let error = events.receive_events().await;
            tracing::debug!(?error, "the embedded runtime's helper has ended");
            events.mark_dead();
            // It ends when its socket does; this only takes its status.
            if let Err(error) = tokio::task::spawn_blocking(move || child.wait()).await {
                tracing::debug!(%error, "helper not waited for");
            }
        });
        Ok(spawner)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Everybody who waits learns that it is gone.
    fn mark_dead(&self) {
        let mut waiting = self.waiting();
        waiting.dead = true;
        waiting.spawned.clear();
        waiting.exited.clear();
    }

    fn is_alive(&self) -> bool {
        !self.waiting().dead
    }

    async fn receive_events(&self) -> io::Result<()> {
        loop {
            let received =
                self.control.async_io(Interest::READABLE, |socket| wire::receive::<Event>(socket)).await?;
            let Some((event, fds)) = received else { return Ok(()) };
            let mut waiting = self.waiting();
            match event {
                Event::Spawned { token } => {
                    if let (Some(sender), Some(pidfd)) =
                        (waiting.spawned.remove(&token), fds.into_iter().next())
                    {
                        // Nobody listens when the step was given up meanwhile; it has been killed then.
                        let _ = sender.send(Ok(pidfd));
                    }
                }
                Event::SpawnFailed { token, what, errno } => {
                    waiting.exited.remove(&token);
                    if let Some(sender) = waiting.spawned.remove(&token) {
                        let source = io::Error::from_raw_os_error(errno);
                        let _ = sender.send(Err(Error::Setup { what, source }));
                    }
                }
                Event::Exited { token, code } => {
                    if let Some(sender) = waiting.exited.remove(&token) {
                        let _ = sender.send(code);
                    }
                }
            }
        }
    }

    async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let sent = self.control.async_io(Interest::WRITABLE, |socket| wire::send(socket, request, fds)).await;
        sent.map_err(|error| {
            tracing::debug!(%error, "cannot reach the embedded runtime's helper");
            Error::HelperGone
        })
    }

    fn signal(&self, token: Token, signal: i32) {
        // The spawner is always reading: a socket that is full is one of a spawner that is gone.
        if let Err(error) = wire::send(self.control.get_ref(), &Request::Signal { token, signal }, &[]) {
            tracing::debug!(%error, "cannot signal a step");
        }
    }

    async fn run(
        self: &Arc<Self>,
        request: impl FnOnce(Token) -> Request,
        extra: &[BorrowedFd<'_>],
        plan: &Plan,
        filter: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Started> {
        let failed = |source| Error::Io { what: "send the step to the embedded runtime", source };
        let (ours, theirs) = wire::pair().map_err(failed)?;
        send_plan(&ours, plan, filter, fds).map_err(failed)?;
        let (spawned_sender, spawned) = oneshot::channel();
        let (exit_sender, exit) = oneshot::channel();
        let token = {
            let mut waiting = self.waiting();
            waiting.last += 1;
            let token = waiting.last;
            waiting.spawned.insert(token, spawned_sender);
            waiting.exited.insert(token, exit_sender);
            token
        };
        let process = Child { token, spawner: self.clone(), exit, exited: false };
        let all: Vec<_> = std::iter::once(theirs.as_fd()).chain(extra.iter().copied()).collect();
        self.send(&request(token), &all).await?;
        drop(all);
        drop(theirs);
        let pidfd = spawned.await.map_err(|_| Error::HelperGone)??;
        let mut started = Started { process, terminal: None, exec_error: None, pidfd: Arc::new(pidfd) };
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| failed(e.into()))?;
        let ours = crate::sys::async_fd(ours).map_err(failed)?;
        loop {
            let report = ours.async_io(Interest::READABLE, |socket| wire::receive::<Report>(socket)).await;
            match report.map_err(failed)? {
                // The socket closed when the process was executed.
                None => return Ok(started),
                Some((Report::Terminal, fds)) => started.terminal = fds.into_iter().next(),
                Some((Report::ExecFailed { message }, _)) => started.exec_error = Some(message),
                Some((Report::SetupFailed { what, errno }, _)) => {
                    started.process.wait().await?;
                    return Err(Error::Setup { what, source: io::Error::from_raw_os_error(errno) });
                }
            }
        }
    }
}

fn send_plan(socket: &OwnedFd, plan: &Plan, filter: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let plan = serde_json::to_vec(plan)?;
    let mut file = File::from(memfd_create("kiln-step", MemfdFlags::CLOEXEC)?);
    file.write_all(&plan)?;
    file.write_all(filter)?;
    file.rewind()?;
    let all: Vec<_> = std::iter::once(file.as_fd()).chain(fds.iter().copied()).collect();
    let parcel = Parcel { plan_bytes: plan.len(), filter_bytes: filter.len(), fds: all.len() };
    let mut chunks = all.chunks(PACKET_FDS_MAX);
    wire::send(socket, &parcel, chunks.next().unwrap_or_default())?;
    chunks.try_for_each(|chunk| wire::send(socket, &(), chunk))
}

/// The program on a read-only mount of its own: no step that gets hold of its own executable can write to the host's.
fn sealed_program(program: &Path) -> io::Result<OwnedFd> {
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let sealed = open_tree(rustix::fs::CWD, program, flags).map_err(io::Error::from).and_then(|fd| {
        crate::sys::mount_setattr(&fd, false, libc::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE)?;
        Ok(fd)
    });
    sealed.or_else(|error| {
        tracing::warn!(%error, "the runtime's program cannot be sealed off from steps");
        Ok(File::open(program)?.into())
    })
}
