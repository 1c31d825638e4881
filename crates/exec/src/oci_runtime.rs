//! `crun` and `runc` as runtimes: the bundle becomes a directory with `config.json`, the mounts are attached where that
//! file says, and the program does the rest.
//!
//! `runc` makes the step's cgroup. `crun` runs in one of ours: it refuses machines whose unified hierarchy has controllers
//! beside the old hierarchies.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use oci_spec::runtime::Process as SpecProcess;
use rustix::fs::{CWD, FileType};
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::bundle::Bundle;
use crate::embedded::EMULATOR_PATH;
use crate::error::at;
use crate::streams::ChildEnds;
use crate::{Error, Result};

/// A runtime with runc's command line.
pub struct OciRuntime {
    program: PathBuf,
    kind: Kind,
    /// The runtime's own state.
    root: PathBuf,
    bundles: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Crun,
    Runc,
}

/// A process started by a runtime program, which stays with it.
pub struct OciChild {
    child: Child,
    terminal: Option<OwnedFd>,
    /// `kill` commands go by container; a further process in one is killed by its own id.
    kill: Kill,
}

enum Kill {
    Container { program: PathBuf, root: PathBuf, id: String },
    Process { pid_file: PathBuf },
}

impl OciRuntime {
    /// Sweeps containers and mounts that a dead daemon left.
    pub async fn open(program: &Path, kind: Kind, state_dir: &Path) -> Result<Self> {
        let (root, bundles) = (state_dir.join("runtime"), state_dir.join("bundles"));
        for dir in [&root, &bundles] {
            fs::create_dir_all(dir).map_err(at("create", dir))?;
        }
        let runtime = Self { program: program.to_owned(), kind, root, bundles };
        for entry in fs::read_dir(&runtime.bundles).map_err(at("read", &runtime.bundles))?.flatten() {
            runtime.release(&entry.file_name().to_string_lossy()).await;
        }
        Ok(runtime)
    }

    pub fn start(&self, bundle: &mut Bundle, ends: ChildEnds) -> Result<OciChild> {
        let dir = self.bundles.join(&bundle.id);
        self.lay_out(&dir, bundle)?;
        let tty = is_terminal(bundle.spec.process().as_ref());
        let mut command = self.command();
        command.arg("run").arg("--bundle").arg(&dir);
        if let Some(cgroup) = &bundle.cgroup {
            join_cgroups(&mut command, cgroup)?;
        }
        let kill =
            Kill::Container { program: self.program.clone(), root: self.root.clone(), id: bundle.id.clone() };
        spawn(command, &bundle.id, ends, tty, kill)
    }

    pub fn join(&self, id: &str, process: &SpecProcess, ends: ChildEnds) -> Result<OciChild> {
        let dir = self.bundles.join(id).join(crate::id::random());
        fs::create_dir(&dir).map_err(at("create", &dir))?;
        let file = dir.join("process.json");
        write_json(&file, process)?;
        let pid_file = dir.join("pid");
        let mut command = self.command();
        command.arg("exec").arg("--process").arg(&file).arg("--pid-file").arg(&pid_file);
        spawn(command, id, ends, is_terminal(Some(process)), Kill::Process { pid_file })
    }

    /// Deletes the container and its directory, mounts first.
    pub async fn release(&self, id: &str) {
        let mut command = self.command();
        command
            .args(["delete", "--force", id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Err(error) = command.status().await {
            tracing::warn!(%error, id, "cannot run the OCI runtime to delete a container");
        }
        let dir = self.bundles.join(id);
        let (root, mounts) = (dir.join("rootfs"), dir.join("mounts"));
        let points = fs::read_dir(&mounts).into_iter().flatten().flatten().map(|entry| entry.path());
        for point in points.chain([root]) {
            // Not mounted: the start did not get that far.
            let _ = unmount(&point, UnmountFlags::DETACH);
        }
        if let Err(error) = fs::remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %dir.display(), "bundle of a step stays");
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        if self.kind == Kind::Crun {
            command.arg("--cgroup-manager=disabled");
        }
        command
    }

    /// Attaches root and mounts, and writes the spec with their places in it.
    fn lay_out(&self, dir: &Path, bundle: &mut Bundle) -> Result<()> {
        let (root, mounts) = (dir.join("rootfs"), dir.join("mounts"));
        for made in [dir, &root, &mounts] {
            fs::create_dir(made).map_err(at("create", made))?;
        }
        attach(bundle.root.as_fd(), &root).map_err(at("mount on", &root))?;
        let mut spec_mounts = bundle.spec.mounts().clone().unwrap_or_default();
        let nothing_to_show = bundle.spec.linux().as_ref().is_none_or(|l| l.cgroups_path().is_none());
        if self.kind == Kind::Crun
            && let Some(mut linux) = bundle.spec.linux().clone()
        {
            linux.set_cgroups_path(None);
            linux.set_resources(None);
            bundle.spec.set_linux(Some(linux));
        }
        for (i, (mount, prepared)) in spec_mounts.iter_mut().zip(&bundle.mounts).enumerate() {
            if let Some(prepared) = prepared {
                let point = mounts.join(i.to_string());
                make_point(prepared.detached.fd.as_fd(), &point).map_err(at("create", &point))?;
                attach(prepared.detached.fd.as_fd(), &point).map_err(at("mount on", &point))?;
                mount.set_source(Some(selected(&point, &prepared.selector)?));
            }
        }
        if nothing_to_show {
            spec_mounts.retain(|mount| mount.typ().as_deref() != Some("cgroup"));
        }
        if let Some(emulator) = &bundle.emulator {
            let point = mounts.join("emulator");
            make_point(emulator.fd.as_fd(), &point).map_err(at("create", &point))?;
            attach(emulator.fd.as_fd(), &point).map_err(at("mount on", &point))?;
            let mut mount = oci_spec::runtime::Mount::default();
            mount.set_destination(EMULATOR_PATH.into());
            mount.set_typ(Some("bind".to_owned()));
            mount.set_source(Some(point));
            mount.set_options(Some(vec!["rbind".to_owned(), "ro".to_owned()]));
            spec_mounts.push(mount);
            put_in_front(&mut bundle.spec);
        }
        bundle.spec.set_mounts(Some(spec_mounts));
        let path = bundle.spec.root().clone().map(|mut spec_root| {
            spec_root.set_path(root.clone());
            spec_root
        });
        bundle.spec.set_root(path);
        write_json(&dir.join("config.json"), &bundle.spec)
    }
}

/// Has a command start in a step's cgroups.
fn join_cgroups(command: &mut Command, cgroup: &crate::cgroup::StepCgroup) -> Result<()> {
    let mut procs: Vec<OwnedFd> = Vec::new();
    let failed = |source| Error::Io { what: "join a cgroup", source };
    if let Some(path) = cgroup.unified_path() {
        procs.push(File::options().write(true).open(path.join("cgroup.procs")).map_err(failed)?.into());
    }
    for (_, _, fd) in cgroup.old() {
        procs.push(fd.try_clone_to_owned().map_err(failed)?);
    }
    let join = move || procs.iter().try_for_each(|fd| Ok(rustix::io::write(fd, b"0").map(|_| ())?));
    // SAFETY: between fork and execution the closure only writes to open descriptors, which needs no lock and no memory.
    unsafe { command.pre_exec(join) };
    Ok(())
}

/// The emulator becomes the process, told the program and its arguments. The program has to be named by its path: nobody
/// searches `PATH` for it inside.
fn put_in_front(spec: &mut oci_spec::runtime::Spec) {
    let Some(mut process) = spec.process().clone() else { return };
    let args = process.args().clone().unwrap_or_default();
    let mut all = vec![EMULATOR_PATH.to_owned()];
    all.extend(args);
    process.set_args(Some(all));
    spec.set_process(Some(process));
}

fn is_terminal(process: Option<&SpecProcess>) -> bool {
    process.and_then(|p| p.terminal()).unwrap_or(false)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_vec(value).map_err(|e| at("write", path)(e.into()))?;
    fs::write(path, json).map_err(at("write", path))
}

fn make_point(mount: BorrowedFd<'_>, point: &Path) -> io::Result<()> {
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode) == FileType::Directory;
    if is_dir { fs::create_dir(point) } else { fs::write(point, "") }
}

fn attach(mount: BorrowedFd<'_>, point: &Path) -> io::Result<()> {
    Ok(move_mount(mount, c"", CWD, point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What is selected in a mount, with links followed inside of it; a program can only be told a path.
fn selected(point: &Path, selector: &str) -> Result<PathBuf> {
    if selector.trim_matches('/').is_empty() {
        return Ok(point.to_owned());
    }
    let root = crate::beneath::Root::open_path(point).map_err(at("open", point))?;
    let path = root.resolve(Path::new(selector)).map_err(at("resolve", selector))?;
    match root.exists(&path) {
        Ok(true) => Ok(point.join(path.as_path())),
        Ok(false) => Err(at("open", selector)(io::ErrorKind::NotFound.into())),
        Err(error) => Err(at("open", selector)(error.into())),
    }
}

fn spawn(mut command: Command, id: &str, ends: ChildEnds, tty: bool, kill: Kill) -> Result<OciChild> {
    let failed = |source| Error::Io { what: "start the OCI runtime", source };
    let mut terminal = None;
    if tty {
        // The program makes the container's terminal and copies between that and this one.
        let (master, slave) = make_terminal().map_err(failed)?;
        let end = || slave.try_clone().map(Stdio::from).map_err(failed);
        command.stdin(end()?).stdout(end()?).stderr(end()?);
        terminal = Some(master);
    } else {
        let end = |end: Option<OwnedFd>| end.map_or_else(Stdio::null, Stdio::from);
        command.stdin(end(ends.stdin)).stdout(end(ends.stdout)).stderr(end(ends.stderr));
    }
    // Its own process group: the terminal's signals are the daemon's business.
    command.arg(id).process_group(0);
    let child = command.spawn().map_err(failed)?;
    Ok(OciChild { child, terminal, kill })
}

fn make_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    Ok((master, slave))
}

impl OciChild {
    pub async fn wait(&mut self) -> Result<u32> {
        use std::os::unix::process::ExitStatusExt;
        const SIGNAL_BASE: i32 = 128;
        let status = self.child.wait().await;
        let status = status.map_err(|source| Error::Io { what: "wait for the OCI runtime", source })?;
        Ok(status.code().or(status.signal().map(|s| SIGNAL_BASE + s)).unwrap_or_default() as u32)
    }

    /// The program hands signals on.
    pub fn signal(&self, signal: i32) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32));
        if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(signal)) {
            // It may have ended.
            let _ = kill_process(pid, signal);
        }
    }

    pub async fn kill(&self) {
        match &self.kill {
            Kill::Container { program, root, id } => {
                let mut command = Command::new(program);
                command.arg("--root").arg(root).args(["kill", id, "KILL"]).env_clear();
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                // Until the container is there, the command fails.
                const TRIES: u32 = 100;
                const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
                for _ in 0..TRIES {
                    if command.status().await.is_ok_and(|status| status.success()) || self.has_ended() {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                self.signal(libc::SIGKILL);
            }
            Kill::Process { pid_file } => {
                let pid = fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse().ok());
                match pid.and_then(Pid::from_raw) {
                    Some(pid) => drop(kill_process(pid, Signal::KILL)),
                    None => self.signal(libc::SIGKILL),
                }
            }
        }
    }

    fn has_ended(&self) -> bool {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid as i32));
        pid.is_none_or(|pid| {
            fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).is_ok_and(|stat| {
                stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
            })
        })
    }

    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }
}
