//! A user namespace for a daemon that is not root.
//!
//! With `newuidmap`, `newgidmap` and ranges in `/etc/subuid` and `/etc/subgid` the daemon gets a range of ids, otherwise a
//! single one: its user becomes root in the namespace.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, Signal, getgid, getuid, kill_process, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

use crate::{Error, Result, sys};

/// A range of ids: `inside` to `inside + count` in the namespace are `outside` … on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// How ids are mapped in the daemon's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

impl Mapping {
    /// Only root is mapped: no other owner can be stored, and steps cannot change their user.
    pub fn is_single_id(&self) -> bool {
        let count = |ranges: &[IdRange]| ranges.iter().map(|r| u64::from(r.count)).sum::<u64>();
        count(&self.uids) <= 1 || count(&self.gids) <= 1
    }
}

/// What [`enter`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entered {
    /// Real root: nothing to do.
    Privileged,
    /// Running as root of a user namespace of our own.
    Rootless(Mapping),
}

/// Where the programs of Debian's `uidmap` are looked for.
const PROGRAM_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// Called by the daemon before it starts threads. When not root, goes on in a child process that is root of a new user and
/// mount namespace; the process that was started waits for it, hands signals on and ends as it ends. As root, also as root
/// of a namespace that somebody else made, returns at once.
///
/// # Errors
/// When the kernel refuses user namespaces.
pub fn enter() -> Result<Entered> {
    if getuid().is_root() {
        let mapping = current().map_err(|source| Error::Io { what: "read own id mapping", source })?;
        let initial = |ranges: &[IdRange]| ranges == [IdRange { inside: 0, outside: 0, count: u32::MAX }];
        if initial(&mapping.uids) {
            return Ok(Entered::Privileged);
        }
        return Ok(Entered::Rootless(mapping));
    }
    let failed = |what| move |source: io::Error| Error::Io { what, source };
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(io::Error::from);
    let (unshared, tell_unshared) = pipe().map_err(failed("make a pipe"))?;
    let (mapped, tell_mapped) = pipe().map_err(failed("make a pipe"))?;
    // SAFETY: by this function's contract there are no other threads yet.
    match unsafe { sys::fork() }.map_err(failed("start the daemon's process"))? {
        Some(child) => {
            drop((tell_unshared, mapped));
            supervise(child, unshared, tell_mapped)
        }
        None => {
            drop((unshared, tell_mapped));
            become_root(tell_unshared, mapped)
        }
    }
}

/// The child: root of its own namespaces once the ids are mapped.
fn become_root(tell_unshared: OwnedFd, mapped: OwnedFd) -> Result<Entered> {
    let failed = |what| move |source: io::Error| Error::Io { what, source };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| failed("tie the daemon's processes")(e.into()))?;
    // SAFETY: one thread, see `enter`; file descriptors are not unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS) }
        .map_err(|e| failed("make a user namespace (are they allowed for this user?)")(e.into()))?;
    let map = |e: rustix::io::Errno| failed("map ids of the user namespace")(e.into());
    rustix::io::write(&tell_unshared, b"1").map_err(map)?;
    if rustix::io::read(&mapped, &mut [0u8; 1]).map_err(map)? == 0 {
        return Err(map(rustix::io::Errno::PERM));
    }
    let zero = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
    rustix::thread::set_thread_res_gid(zero.1, zero.1, zero.1).map_err(map)?;
    rustix::thread::set_thread_res_uid(zero.0, zero.0, zero.0).map_err(map)?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .map_err(|e| failed("separate mounts from the host's")(e.into()))?;
    Ok(Entered::Rootless(current().map_err(failed("read own id mapping"))?))
}

/// The parent: maps the child's ids, then waits for its end.
fn supervise(child: Pid, unshared: OwnedFd, tell_mapped: OwnedFd) -> ! {
    let told = rustix::io::read(&unshared, &mut [0u8; 1]);
    if told.is_ok_and(|n| n == 1) {
        // When this fails too, the child sees the pipe close, and reports.
        if map_ranges(child).or_else(|()| map_single(child).map_err(|_| ())).is_ok() {
            let _ = rustix::io::write(&tell_mapped, b"1");
        }
    }
    drop(tell_mapped);
    let code = sys::forward_signals_until_exit(child);
    std::process::exit(code)
}

fn map_ranges(child: Pid) -> Result<(), ()> {
    let programs = [program("newuidmap").ok_or(())?, program("newgidmap").ok_or(())?];
    let user = user_name(getuid().as_raw());
    let own = [getuid().as_raw(), getgid().as_raw()];
    let files = ["/etc/subuid", "/etc/subgid"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let ranges = files.map(|text| parse_ranges(&text, user.as_deref(), getuid().as_raw()));
    if ranges.iter().any(Vec::is_empty) {
        return Err(());
    }
    for ((program, own), ranges) in programs.iter().zip(own).zip(ranges) {
        let mut command = Command::new(program);
        command.arg(child.as_raw_nonzero().to_string()).args(["0", &own.to_string(), "1"]);
        let mut inside = 1u32;
        for (start, count) in ranges {
            command.args([inside.to_string(), start.to_string(), count.to_string()]);
            inside = inside.saturating_add(count);
        }
        if !command.status().is_ok_and(|status| status.success()) {
            return Err(());
        }
    }
    Ok(())
}

fn map_single(child: Pid) -> io::Result<()> {
    let write =
        |file: &str, text: String| fs::write(format!("/proc/{}/{file}", child.as_raw_nonzero()), text);
    // After `newuidmap` alone has worked, the user ids are there already.
    let uids = write("uid_map", format!("0 {} 1", getuid().as_raw()));
    write("setgroups", "deny".to_owned())?;
    write("gid_map", format!("0 {} 1", getgid().as_raw()))?;
    match fs::read_to_string(format!("/proc/{}/uid_map", child.as_raw_nonzero())) {
        Ok(map) if !map.is_empty() => Ok(()),
        _ => uids,
    }
}

fn program(name: &str) -> Option<PathBuf> {
    PROGRAM_DIRS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let entry = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()))?;
    entry.split(':').next().map(str::to_owned)
}

/// Start and length of a user's ranges, which go by name or by number.
fn parse_ranges(text: &str, user: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let uid = uid.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != user && owner != uid {
            return None;
        }
        let range: (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (range.1 > 0).then_some(range)
    });
    ranges.collect()
}

/// The mapping of this process's namespace.
fn current() -> io::Result<Mapping> {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).map(|text| parse_map(&text));
    Ok(Mapping { uids: read("uid_map")?, gids: read("gid_map")? })
}

fn parse_map(text: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdRange { inside: next()?, outside: next()?, count: next()? })
    };
    text.lines().filter_map(range).collect()
}

/// Ranges for a namespace below this one in which every id is what it is here.
pub(crate) fn identity() -> Result<(Vec<IdRange>, Vec<IdRange>)> {
    let own = current().map_err(|source| Error::Io { what: "read own id mapping", source })?;
    let same =
        |ranges: Vec<IdRange>| ranges.into_iter().map(|r| IdRange { outside: r.inside, ..r }).collect();
    Ok((same(own.uids), same(own.gids)))
}

/// As the kernel's `uid_map` wants it.
pub(crate) fn map_text(ranges: &[IdRange]) -> String {
    ranges.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count)).collect()
}

/// For [`sys::forward_signals_until_exit`].
pub(crate) fn forward(child: Pid, signal: i32) {
    if let Some(signal) = Signal::from_named_raw(signal) {
        // It may have ended; that is noticed next.
        let _ = kill_process(child, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_name_and_number() {
        let text = "root:1:2\nme:100000:65536\n# x\n1000:300000:10\nme:bad:1\nme:5:0\n";
        assert_eq!(parse_ranges(text, Some("me"), 1000), [(100_000, 65_536), (300_000, 10)]);
        assert_eq!(parse_ranges(text, None, 7), []);
    }

    #[test]
    fn maps() {
        let map = parse_map("         0       1000          1\n         1     100000      65536\n");
        assert_eq!(map[1], IdRange { inside: 1, outside: 100_000, count: 65_536 });
        assert_eq!(map_text(&map), "0 1000 1\n1 100000 65536\n");
        let single = Mapping { uids: map[..1].to_vec(), gids: map.clone() };
        assert!(single.is_single_id());
        assert!(!Mapping { uids: map.clone(), gids: map }.is_single_id());
    }
}
