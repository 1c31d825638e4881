//! From a process in its namespaces to the step's own program: streams, limits, identity, confinement, execution.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Access, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::init::{InitError, Received, to};
use super::plan::{Enter, Plan, ProcessPlan};
use super::wire::{self, Report};
use crate::sys::{self, FilterInstruction};

/// Files of the host's `/proc` that decide about this process, opened before it can no longer see them.
pub struct HostFiles {
    apparmor: Option<File>,
    oom_score: Option<File>,
    null: File,
    groups_denied: bool,
}

impl HostFiles {
    pub fn open(process: &ProcessPlan) -> Result<Self, InitError> {
        let writable =
            |path: &str| File::options().write(true).open(path).map_err(to(format_args!("open {path}")));
        let apparmor = match &process.apparmor_profile {
            Some(_) if Path::new("/proc/self/attr/apparmor/exec").exists() => {
                Some(writable("/proc/self/attr/apparmor/exec")?)
            }
            Some(_) => Some(writable("/proc/self/attr/exec")?),
            None => None,
        };
        let oom_score = process.oom_score_adj.map(|_| writable("/proc/self/oom_score_adj")).transpose()?;
        let null = File::options().read(true).write(true).open("/dev/null").map_err(to("open /dev/null"))?;
        let groups = std::fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
        Ok(Self { apparmor, oom_score, null, groups_denied: groups.trim() == "deny" })
    }
}

/// The last part of a step's way; returns only on failure.
pub fn execute(
    plan: &Plan,
    filter: &[FilterInstruction],
    fds: &Received,
    host: HostFiles,
    socket: &OwnedFd,
) -> Result<Infallible, InitError> {
    let process = &plan.process;
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    streams(plan, fds, &host, socket)?;
    for (resource, soft, hard) in &process.rlimits {
        sys::set_rlimit(*resource, *soft, *hard).map_err(to(format_args!("set rlimit {resource}")))?;
    }
    if let (Some(mut file), Some(score)) = (host.oom_score.as_ref(), process.oom_score_adj) {
        file.write_all(score.to_string().as_bytes()).map_err(to("set the OOM score"))?;
    }
    if let (Some(mut file), Some(profile)) = (host.apparmor.as_ref(), &process.apparmor_profile) {
        file.write_all(format!("exec {profile}").as_bytes()).map_err(to("set the AppArmor profile"))?;
    }
    // As root; a directory that only the step's user may enter is tried again later.
    let mut in_cwd = change_directory(&process.cwd)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(to("forbid new privileges"))?;
    } else if !filter.is_empty() {
        // Without that bit a filter needs a privilege that is dropped further down.
        sys::seccomp_load(filter).map_err(to("load the system call filter"))?;
    }
    identity(process, &host)?;
    if !in_cwd {
        in_cwd = change_directory(&process.cwd)?;
    }
    if !in_cwd {
        return Err(InitError::Exec {
            message: format!("chdir to cwd ({:?}): permission denied", process.cwd),
        });
    }
    capabilities(process)?;
    if process.no_new_privileges && !filter.is_empty() {
        sys::seccomp_load(filter).map_err(to("load the system call filter"))?;
    }
    // The change of user has reset it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(to("tie the step to the daemon"))?;
    sys::close_on_exec_from(3).map_err(to("close the daemon's files"))?;
    program(process)
}

fn streams(plan: &Plan, fds: &Received, host: &HostFiles, socket: &OwnedFd) -> Result<(), InitError> {
    if plan.process.terminal {
        return terminal(plan, socket);
    }
    for (number, index) in plan.stdio.iter().enumerate() {
        let source = match index {
            Some(index) => fds.get(*index)?,
            None => host.null.as_fd(),
        };
        replace_stream(number, source)?;
        if index.is_some() && plan.process.uid != 0 {
            // So that the user can open /dev/stdout. Files that forbid it stay as they are.
            let uid = rustix::fs::Uid::from_raw(plan.process.uid);
            let _ = rustix::fs::fchown(source, Some(uid), None);
        }
    }
    Ok(())
}

fn replace_stream(number: usize, source: std::os::fd::BorrowedFd<'_>) -> Result<(), InitError> {
    let replaced = match number {
        0 => rustix::stdio::dup2_stdin(source),
        1 => rustix::stdio::dup2_stdout(source),
        _ => rustix::stdio::dup2_stderr(source),
    };
    replaced.map_err(to("connect the streams"))
}

/// A pseudo terminal of the container's own becomes its streams and its console; the other side goes to the daemon.
fn terminal(plan: &Plan, socket: &OwnedFd) -> Result<(), InitError> {
    let what = "make a terminal";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty()).map_err(to(what))?;
    rustix::pty::unlockpt(&master).map_err(to(what))?;
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY,
    )
    .map_err(to(what))?;
    if plan.process.uid != 0 {
        let uid = rustix::fs::Uid::from_raw(plan.process.uid);
        rustix::fs::fchown(&slave, Some(uid), None).map_err(to("give the terminal to the user"))?;
    }
    if matches!(plan.enter, Enter::New(_)) {
        console(&slave).map_err(to("make the console"))?;
    }
    for number in 0..3 {
        replace_stream(number, slave.as_fd())?;
    }
    rustix::process::ioctl_tiocsctty(&slave).map_err(to("take the terminal"))?;
    wire::send(socket, &Report::Terminal, &[master.as_fd()]).map_err(to("hand the terminal over"))
}

fn console(slave: &OwnedFd) -> io::Result<()> {
    use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
    File::create("/dev/console")?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(slave, c"", flags)?;
    Ok(move_mount(&mount, c"", CWD, "/dev/console", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// False when this user may not enter.
fn change_directory(cwd: &str) -> Result<bool, InitError> {
    match rustix::process::chdir(cwd) {
        Ok(()) => Ok(true),
        Err(Errno::ACCESS | Errno::PERM) => Ok(false),
        Err(error) => {
            let error = io::Error::from(error);
            Err(InitError::Exec {
                message: format!("chdir to cwd ({cwd:?}) set in config.json failed: {}", go(&error)),
            })
        }
    }
}

/// Groups, then ids; capabilities survive until [`capabilities`] sets them.
fn identity(process: &ProcessPlan, host: &HostFiles) -> Result<(), InitError> {
    for number in 0..u64::BITS {
        if process.bounding & (1 << number) == 0 {
            match drop_from_bounding_set(number) {
                // Beyond what this kernel knows.
                Err(Errno::INVAL) => break,
                result => result.map_err(to("limit capabilities"))?,
            }
        }
    }
    rustix::thread::set_keep_capabilities(true).map_err(to("keep capabilities over the change of user"))?;
    let groups: Vec<_> = process.groups.iter().map(|g| rustix::fs::Gid::from_raw(*g)).collect();
    // A user namespace with a single id has no groups to set.
    if !host.groups_denied {
        rustix::thread::set_thread_groups(&groups).map_err(|e| unmapped("set groups", process, e))?;
    }
    let gid = rustix::fs::Gid::from_raw(process.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)
        .map_err(|e| unmapped("change the group", process, e))?;
    let uid = rustix::fs::Uid::from_raw(process.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|e| unmapped("change the user", process, e))?;
    rustix::thread::set_keep_capabilities(false).map_err(to("stop keeping capabilities"))
}

fn unmapped(what: &str, process: &ProcessPlan, error: Errno) -> InitError {
    if error == Errno::INVAL {
        return InitError::Exec {
            message: format!(
                "cannot run as {}:{}: these ids are not mapped in the daemon's user namespace \
                 (give the user ranges in /etc/subuid and /etc/subgid)",
                process.uid, process.gid
            ),
        };
    }
    to(what)(error)
}

fn drop_from_bounding_set(number: u32) -> Result<(), Errno> {
    // The kernel's own numbers: newer ones have no name in the set's type.
    rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number))
}

fn capabilities(process: &ProcessPlan) -> Result<(), InitError> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(process.effective),
        permitted: CapabilitySet::from_bits_retain(process.permitted),
        inheritable: CapabilitySet::from_bits_retain(process.inheritable),
    };
    rustix::thread::set_capabilities(None, sets).map_err(to("set capabilities"))?;
    rustix::thread::clear_ambient_capability_set().map_err(to("clear ambient capabilities"))?;
    for number in 0..u64::BITS {
        if process.ambient & (1 << number) != 0 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            rustix::thread::configure_capability_in_ambient_set(capability, true)
                .map_err(to("set ambient capabilities"))?;
        }
    }
    Ok(())
}

/// Executes the program; on return it could not be.
fn program(process: &ProcessPlan) -> Result<Infallible, InitError> {
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let found = find_program(name, &process.env).map_err(|message| InitError::Exec { message })?;
    let (path, args) = match &process.emulator {
        // The emulator is told the process's own name, then the program and the rest.
        Some(emulator) => {
            let mut args = vec![emulator.clone(), "-0".to_owned(), name.to_owned(), found];
            args.extend(process.args.iter().skip(1).cloned());
            (emulator.clone(), args)
        }
        None => (found, process.args.clone()),
    };
    let c_strings = |strings: &[String]| {
        strings
            .iter()
            .map(|s| CString::new(s.as_str()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(to("pass a zero byte"))
    };
    let error = sys::execve(
        &c_strings(std::slice::from_ref(&path))?[0],
        &c_strings(&args)?,
        &c_strings(&process.env)?,
    );
    Err(InitError::Exec { message: format!("exec {path}: {}", go(&error)) })
}

/// Looks a program up as a shell would. The texts are those of runc, which people know.
fn find_program(name: &str, env: &[String]) -> Result<String, String> {
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("exec: {name:?}: stat {name}: {}", go(&error)))
            }
            Err(error) => Err(format!("exec: {name:?}: {}", go(&error))),
        };
    }
    // Of several the last counts, as in an environment that is read front to back.
    let path = env.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or_default();
    for dir in path.split(':') {
        let dir = if dir.is_empty() { "." } else { dir };
        let candidate = format!("{dir}/{name}");
        if !name.is_empty() && executable(&candidate).is_ok() {
            return Ok(candidate);
        }
    }
    Err(format!("exec: {name:?}: executable file not found in $PATH"))
}

fn executable(path: &str) -> io::Result<()> {
    let stat = rustix::fs::stat(OsStr::from_bytes(path.as_bytes()))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR.into());
    }
    Ok(rustix::fs::accessat(CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::EACCESS)?)
}

/// The message of an error without its number, in lower case, as Go programs print it.
fn go(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
