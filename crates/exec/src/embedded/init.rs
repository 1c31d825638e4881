//! The child that becomes a step: receives its plan, enters what is to be its world, and executes the process.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

use super::plan::{Container, Enter, FdIndex, Plan};
use super::wire::{self, Parcel, Report};
use super::{filesystem, process};
use crate::sys::{self, FilterInstruction};

/// What failed in a step before its process ran.
#[derive(Debug)]
pub enum InitError {
    /// A call of ours, with what it was for.
    Setup { what: String, source: io::Error },
    /// The image or the user names a process that cannot be executed.
    Exec { message: String },
}

/// For `map_err`: says what a call was for.
pub fn to<E: Into<io::Error>>(what: impl fmt::Display) -> impl FnOnce(E) -> InitError {
    move |source| InitError::Setup { what: what.to_string(), source: source.into() }
}

/// Descriptors that came with the plan.
pub struct Received(Vec<OwnedFd>);

impl Received {
    pub fn get(&self, index: FdIndex) -> Result<BorrowedFd<'_>, InitError> {
        let missing = || to("find a descriptor of the plan")(io::Error::from(io::ErrorKind::InvalidData));
        self.0.get(index.0).map(AsFd::as_fd).ok_or_else(missing)
    }
}

/// Runs in the forked child; ends in the step's process, or in a report to the daemon.
pub fn run(socket: OwnedFd, id_maps_written: Option<OwnedFd>) -> ! {
    let error = match become_step(&socket, id_maps_written) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let report = match error {
        InitError::Setup { what, source } => {
            let errno = source.raw_os_error().unwrap_or(libc::EIO);
            Report::SetupFailed { what, errno }
        }
        InitError::Exec { message } => Report::ExecFailed { message },
    };
    // With the daemon gone there is nobody to tell.
    let _ = wire::send(&socket, &report, &[]);
    std::process::exit(1)
}

/// The whole way from fork to execution, step by step. What a step needs of the host is opened before its root is entered;
/// what it could use against the host is dropped before its program runs.
fn become_step(
    socket: &OwnedFd,
    id_maps_written: Option<OwnedFd>,
) -> Result<std::convert::Infallible, InitError> {
    sys::reset_signals();
    // Ends with the spawner, and by it with the daemon; set again once the user is changed, which resets it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(to("tie the step to the daemon"))?;
    // In a user namespace nothing works until its ids are mapped.
    if let Some(written) = id_maps_written {
        let got =
            rustix::io::read(&written, &mut [0u8; 1]).map_err(to("wait for the ids of a user namespace"))?;
        if got == 0 {
            return Err(to("wait for the ids of a user namespace")(io::Error::from(
                io::ErrorKind::UnexpectedEof,
            )));
        }
    }
    let (plan, filter, fds) = receive_plan(socket)?;
    // A session and process group of its own: signals of the daemon's terminal do not reach it.
    rustix::process::setsid().map_err(to("start a session"))?;
    // Opened now: the step's own /proc is not to be trusted with the step's confinement.
    let host = process::HostFiles::open(&plan.process)?;
    for procs in &plan.join_cgroups {
        rustix::io::write(fds.get(*procs)?, b"0").map_err(to("join a cgroup"))?;
    }
    match &plan.enter {
        Enter::New(container) => enter_new(container, &fds)?,
        Enter::Join { process, namespaces } => enter_running(fds.get(*process)?, *namespaces)?,
    }
    process::execute(&plan, &filter, &fds, host, socket)
}

/// Makes the new namespaces the container that the plan describes.
fn enter_new(container: &Container, fds: &Received) -> Result<(), InitError> {
    // After joining cgroups, so that they are the namespace's root.
    if container.cgroup_namespace {
        // SAFETY: this process has one thread, and no file descriptors are unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }
            .map_err(to("make a cgroup namespace"))?;
    }
    rustix::system::sethostname(container.hostname.as_bytes()).map_err(to("set the hostname"))?;
    if container.own_network {
        sys::loopback_up().map_err(to("bring the loopback interface up"))?;
    }
    let keyring = std::ffi::CString::new(container.keyring.as_str()).map_err(to("name a keyring"))?;
    match sys::join_session_keyring(&keyring) {
        // A kernel without keys, or one that keeps them from containers, has none to leak.
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            return Err(to("make a session keyring")(error));
        }
        _ => {}
    }
    filesystem::enter(container, fds)
}

/// Moves into the namespaces of a running container. Its pid namespace was entered by birth.
fn enter_running(process: BorrowedFd<'_>, namespaces: u32) -> Result<(), InitError> {
    // From here on the container's processes see this one: they must not get at this program through /proc.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(to("hide from the container"))?;
    let kinds = ThreadNameSpaceType::from_bits_retain(namespaces & !(LinkNameSpaceType::ProcessID as u32));
    move_into_thread_name_spaces(process, kinds).map_err(to("enter the container"))
}

fn receive_plan(socket: &OwnedFd) -> Result<(Plan, Vec<FilterInstruction>, Received), InitError> {
    use std::io::Read;
    let what = "receive the plan of the step";
    let gone = || to(what)(io::Error::from(io::ErrorKind::UnexpectedEof));
    let (parcel, mut fds): (Parcel, _) = wire::receive(socket).map_err(to(what))?.ok_or_else(gone)?;
    while fds.len() < parcel.fds {
        let ((), more) = wire::receive(socket).map_err(to(what))?.ok_or_else(gone)?;
        fds.extend(more);
    }
    if fds.is_empty() {
        return Err(gone());
    }
    let mut file = std::fs::File::from(fds.remove(0));
    let mut plan = vec![0; parcel.plan_bytes];
    file.read_exact(&mut plan).map_err(to(what))?;
    let plan = serde_json::from_slice(&plan).map_err(to(what))?;
    let mut filter = vec![0; parcel.filter_bytes];
    file.read_exact(&mut filter).map_err(to(what))?;
    let (instructions, _) = filter.as_chunks::<{ FilterInstruction::BYTES }>();
    let filter = instructions.iter().map(|bytes| FilterInstruction::from_bytes(*bytes)).collect();
    Ok((plan, filter, Received(fds)))
}
