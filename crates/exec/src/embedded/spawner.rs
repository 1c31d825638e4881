//! The helper that forks steps. One thread, no async, no state but its children.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, wait};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::init;
use super::wire::{self, Event, Request, Token};
use crate::sys::{self, Cloned};

/// The name under which the program is executed to become the spawner; its standard input is the control socket.
pub const ARGV0: &str = "kiln-exec-spawner";

/// Serves the daemon until it goes away, then ends every step and the process.
pub fn run() -> ! {
    let mut spawner = match Spawner::new() {
        Ok(spawner) => spawner,
        Err(_) => std::process::exit(1),
    };
    // The daemon's end, or a socket that has broken: either way nobody is left to serve.
    let _ = spawner.serve();
    for pid in spawner.children.values() {
        let _ = kill_process(*pid, Signal::KILL);
    }
    std::process::exit(0)
}

struct Spawner {
    control: OwnedFd,
    child_ended: OwnedFd,
    own_pid_namespace: OwnedFd,
    own_network: OwnedFd,
    children: HashMap<Token, Pid>,
}

impl Spawner {
    fn new() -> io::Result<Self> {
        // Away from 0, so that nothing inherits it by accident.
        let control = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        // The terminal's signals are the daemon's business.
        rustix::process::setsid()?;
        rustix::thread::set_name(c"kiln-spawner")?;
        let namespace = |name: &str| std::fs::File::open(format!("/proc/self/ns/{name}")).map(OwnedFd::from);
        Ok(Self {
            control,
            child_ended: sys::block_signals_and_watch_children()?,
            own_pid_namespace: namespace("pid")?,
            own_network: namespace("net")?,
            children: HashMap::new(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        loop {
            let mut ready =
                [PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.child_ended, PollFlags::IN)];
            match poll(&mut ready, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result?,
            };
            let (control, child_ended) = (!ready[0].revents().is_empty(), !ready[1].revents().is_empty());
            if child_ended {
                self.reap()?;
            }
            if control {
                match wire::receive(&self.control)? {
                    Some((request, fds)) => self.handle(request, fds)?,
                    None => return Ok(()),
                }
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut drain = [0u8; 128 * 16];
        while rustix::io::read(&self.child_ended, &mut drain).is_ok_and(|n| n > 0) {}
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let token = self.children.iter().find(|(_, p)| **p == pid).map(|(token, _)| *token);
            if let Some(token) = token {
                self.children.remove(&token);
                const SIGNAL_BASE: i32 = 128;
                let signal = status.terminating_signal().map(|signal| SIGNAL_BASE + signal);
                let code = status.exit_status().or(signal).unwrap_or_default();
                wire::send(&self.control, &Event::Exited { token, code: code as u32 }, &[])?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        match request {
            Request::Signal { token, signal } => {
                // Gone meanwhile: its end is on its way to the daemon. Not reaped yet, so the number is still its own.
                if let (Some(pid), Some(signal)) = (self.children.get(&token), Signal::from_named_raw(signal))
                {
                    let _ = kill_process(*pid, signal);
                }
                Ok(())
            }
            Request::Spawn { token, .. } => {
                let spawned = self.spawn(&request, fds).and_then(|pid| {
                    // Not reaped yet, so the number is still its own.
                    let pidfd =
                        pidfd_open(pid, PidfdFlags::empty()).map_err(|e| ("refer to a process", e.into()));
                    if pidfd.is_err() {
                        let _ = kill_process(pid, Signal::KILL);
                    }
                    Ok((pid, pidfd?))
                });
                match spawned {
                    Ok((pid, pidfd)) => {
                        self.children.insert(token, pid);
                        wire::send(&self.control, &Event::Spawned { token }, &[pidfd.as_fd()])
                    }
                    Err((what, error)) => {
                        let errno = error.raw_os_error().unwrap_or(libc::EIO);
                        wire::send(
                            &self.control,
                            &Event::SpawnFailed { token, what: what.to_owned(), errno },
                            &[],
                        )
                    }
                }
            }
        }
    }

    fn spawn(&self, request: &Request, fds: Vec<OwnedFd>) -> Result<Pid, (&'static str, io::Error)> {
        let Request::Spawn { namespaces, into_cgroup, into_network, into_pid_namespace_of, id_maps, .. } =
            request
        else {
            return Err(("read a request", io::ErrorKind::InvalidData.into()));
        };
        let mut fds = fds.into_iter();
        let mut next = |wanted: bool| match wanted {
            true => {
                fds.next().map(Some).ok_or(("read a request", io::Error::from(io::ErrorKind::InvalidData)))
            }
            false => Ok(None),
        };
        let step = next(true)?.ok_or(("read a request", io::ErrorKind::InvalidData.into()))?;
        let cgroup = next(*into_cgroup)?;
        let network = next(*into_network)?;
        let process = next(*into_pid_namespace_of)?;
        let (map_ready, map_written) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| ("make a pipe", e.into()))?;
        // The child is born where the spawner is, so the spawner goes there for that long.
        if let Some(network) = &network {
            enter(network.as_fd(), LinkNameSpaceType::Network)
                .map_err(|e| ("enter a network namespace", e))?;
        }
        if let Some(process) = &process {
            let pid_namespace = rustix::thread::ThreadNameSpaceType::PROCESS_ID;
            rustix::thread::move_into_thread_name_spaces(process.as_fd(), pid_namespace)
                .map_err(|e| ("enter a pid namespace", e.into()))?;
        }
        // SAFETY: this process has one thread: it was executed as spawner and starts none.
        let cloned = unsafe { sys::clone3(*namespaces, cgroup.as_ref().map(|fd| fd.as_fd())) };
        if let Ok(Cloned::Child) = cloned {
            drop(map_written);
            init::run(step, id_maps.is_some().then_some(map_ready));
        }
        drop(map_ready);
        if network.is_some() {
            enter(self.own_network.as_fd(), LinkNameSpaceType::Network)
                .map_err(|e| ("return to own network", e))?;
        }
        if process.is_some() {
            enter(self.own_pid_namespace.as_fd(), LinkNameSpaceType::ProcessID)
                .map_err(|e| ("return to own pid namespace", e))?;
        }
        let pid = match cloned {
            Ok(Cloned::Parent { pid }) => pid,
            Ok(Cloned::Child) => unreachable!("the child has gone its own way"),
            Err(error) => return Err(("create namespaces", error)),
        };
        let child = Pid::from_raw(pid).ok_or(("create a process", io::ErrorKind::InvalidData.into()))?;
        if let Some((uids, gids)) = id_maps {
            let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text);
            let mapped = write("uid_map", uids).and_then(|()| write("gid_map", gids));
            if let Err(error) = mapped {
                let _ = kill_process(child, Signal::KILL);
                return Err(("map ids of a user namespace", error));
            }
            // A child that is gone is reported when it is reaped.
            let _ = rustix::io::write(&map_written, b"1");
        }
        Ok(child)
    }
}

fn enter(namespace: BorrowedFd<'_>, kind: LinkNameSpaceType) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(kind))?)
}
