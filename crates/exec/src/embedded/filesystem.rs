//! The mount namespace of a step: from a copy of the host's mounts to the step's root and nothing else.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount, fsopen, mount, mount_change, move_mount,
    open_tree, unmount,
};

use super::init::{InitError, Received, to};
use super::plan::{CgroupView, Container, Device, Mountable};
use crate::beneath::{Resolved, Root};
use crate::sys::mount_setattr;

const BINFMT_DIR: &str = "/proc/sys/fs/binfmt_misc";

/// Makes the root of the plan this process's, with all its mounts.
pub fn enter(container: &Container, fds: &Received) -> Result<(), InitError> {
    // What is mounted from here on stays in this namespace; what the host unmounts goes here too.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::DOWNSTREAM)
        .map_err(to("separate mounts from the host's"))?;
    // Registered while the host's files are still in reach: the kernel opens the emulator now, for good.
    let binfmt = container.binfmt_registration.as_deref().map(register_binfmt).transpose()?;
    let root_fd = fds.get(container.root)?;
    attach(root_fd, CWD, &container.attach_at).map_err(to("attach the root file system"))?;
    let root = Root::new(root_fd);
    for planned in &container.mounts {
        let dest =
            root.resolve(Path::new(&planned.dest)).map_err(to(format_args!("resolve {}", planned.dest)))?;
        mount_one(&root, &dest, &planned.what, container, fds)
            .map_err(to(format_args!("mount on {}", planned.dest)))?;
    }
    let readonly = if container.readonly_root { Some(readonly_view(&container.attach_at)?) } else { None };
    let root_fd = readonly.as_ref().map_or(root_fd, |fd| fd.as_fd());
    rustix::process::fchdir(root_fd).map_err(to("enter the root file system"))?;
    rustix::process::pivot_root(".", ".").map_err(to("switch to the root file system"))?;
    unmount(".", UnmountFlags::DETACH).map_err(to("leave the host's mounts"))?;
    rustix::process::chdir("/").map_err(to("enter the root file system"))?;
    // Bound ones were made while the host's were in reach: see `mount_one`.
    if !container.bind_devices {
        make_devices(&container.devices)?;
    }
    make_device_links()?;
    if let Some(binfmt) = binfmt {
        attach(binfmt.as_fd(), CWD, Path::new(BINFMT_DIR)).map_err(to("attach binfmt_misc"))?;
    }
    for path in &container.readonly {
        make_readonly(path).map_err(to(format_args!("make {path} read-only")))?;
    }
    for path in &container.masked {
        mask(path).map_err(to(format_args!("mask {path}")))?;
    }
    Ok(())
}

/// A second, read-only mount of the root with all its mounts, over the first: the first is also the daemon's, which has
/// yet to clean up in it.
fn readonly_view(attached_at: &Path) -> Result<OwnedFd, InitError> {
    let what = "make the root read-only";
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let view = open_tree(CWD, attached_at, flags).map_err(to(what))?;
    mount_setattr(&view, false, libc::MOUNT_ATTR_RDONLY, 0).map_err(to(what))?;
    attach(view.as_fd(), CWD, attached_at).map_err(to(what))?;
    Ok(view)
}

fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    Ok(move_mount(mount, c"", dir, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn attach_on(mount: BorrowedFd<'_>, point: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", point, c"", flags)?)
}

fn mount_one(
    root: &Root<BorrowedFd<'_>>,
    dest: &Resolved,
    what: &Mountable,
    container: &Container,
    fds: &Received,
) -> io::Result<()> {
    match what {
        Mountable::Detached { fd, selector } => {
            let whole = fds.get(*fd).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            if selector.trim_matches('/').is_empty() {
                return bind(root, dest, whole);
            }
            let part = part_of(whole, selector, &container.scratch_at)?;
            bind(root, dest, part.as_fd())
        }
        Mountable::FileSystem { typ, flags, data } => {
            let point = mount_point(root, dest, false)?;
            mount_file_system(typ, &point, *flags, data)?;
            if typ == "tmpfs" && dest.as_path() == Path::new("dev") && container.bind_devices {
                bind_devices(root, &container.devices)?;
            }
            Ok(())
        }
        Mountable::Sysfs { flags } => {
            let point = mount_point(root, dest, false)?;
            match mount_file_system("sysfs", &point, *flags, "") {
                // Not ours to mount in a user namespace that does not own the network namespace.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => bind_sysfs(&point),
                result => result,
            }
        }
        Mountable::Cgroup { readonly } => mount_cgroups(root, dest, &container.cgroup, *readonly),
    }
}

/// Opens the mount point, making it when it is missing.
fn mount_point(root: &Root<BorrowedFd<'_>>, dest: &Resolved, file: bool) -> io::Result<OwnedFd> {
    if dest.is_root() {
        return Err(Errno::BUSY.into());
    }
    let open = || root.open_at(dest, OFlags::PATH, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {
            if file {
                root.make_file(dest, 0o644)?;
            } else {
                root.make_dir_all(dest, 0o755, None)?;
            }
            Ok(open()?)
        }
        result => Ok(result?),
    }
}

fn bind(root: &Root<BorrowedFd<'_>>, dest: &Resolved, source: BorrowedFd<'_>) -> io::Result<()> {
    let is_dir = FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode) == FileType::Directory;
    let point = mount_point(root, dest, !is_dir)?;
    attach_on(source, point.as_fd())
}

/// A mount of what `selector` names in a detached mount. That one has to be attached for as long as it takes to copy.
fn part_of(whole: BorrowedFd<'_>, selector: &str, scratch: &Path) -> io::Result<OwnedFd> {
    attach(whole, CWD, scratch)?;
    let part = Root::new(whole).open(Path::new(selector), OFlags::PATH);
    let clone = part.and_then(|part| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(&part, c"", flags | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE)
    });
    unmount(scratch, UnmountFlags::DETACH)?;
    Ok(clone?)
}

fn mount_file_system(typ: &str, point: &OwnedFd, flags: u32, data: &str) -> io::Result<()> {
    let target = format!("/proc/self/fd/{}", point.as_raw_fd());
    let data = std::ffi::CString::new(data)?;
    Ok(mount(typ, &target, typ, MountFlags::from_bits_retain(flags), data.as_c_str())?)
}

fn bind_sysfs(point: &OwnedFd) -> io::Result<()> {
    let clone = open_tree(
        CWD,
        "/sys",
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE,
    )?;
    mount_setattr(&clone, true, libc::MOUNT_ATTR_RDONLY, 0)?;
    attach_on(clone.as_fd(), point.as_fd())
}

fn clone_of(path: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// The step's own cgroups: the mount itself where there is one hierarchy, else a directory each.
fn mount_cgroups(
    root: &Root<BorrowedFd<'_>>,
    dest: &Resolved,
    view: &CgroupView,
    readonly: bool,
) -> io::Result<()> {
    let common = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let attributes = common | if readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let point = mount_point(root, dest, false)?;
    if view.unified_only {
        // In a cgroup namespace the file system shows the step's cgroup as its root.
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let flags = MountAttrFlags::from_bits_retain(attributes as u32);
        let fs = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        return attach_on(fs.as_fd(), point.as_fd());
    }
    let flags = (libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC) as u32;
    mount_file_system("tmpfs", &point, flags, "mode=755")?;
    for (name, path) in &view.directories {
        let clone = clone_of(path)?;
        mount_setattr(&clone, false, attributes, 0)?;
        let below = root.resolve(&dest.as_path().join(name))?;
        attach_on(clone.as_fd(), mount_point(root, &below, false)?.as_fd())?;
    }
    if readonly {
        let top = root.open_at(dest, OFlags::PATH, Mode::empty())?;
        mount_setattr(&top, false, libc::MOUNT_ATTR_RDONLY, 0)?;
    }
    Ok(())
}

/// Binds the host's nodes, where a user namespace keeps us from making our own.
fn bind_devices(root: &Root<BorrowedFd<'_>>, devices: &[Device]) -> io::Result<()> {
    for device in devices {
        // An insecure step may name devices that this host lacks.
        let Ok(clone) = clone_of(Path::new(&device.path)) else { continue };
        let dest = root.resolve(Path::new(&device.path))?;
        attach_on(clone.as_fd(), mount_point(root, &dest, true)?.as_fd())?;
    }
    Ok(())
}

fn make_devices(devices: &[Device]) -> Result<(), InitError> {
    for device in devices {
        let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
        let number = rustix::fs::makedev(device.major, device.minor);
        let mode = Mode::from_raw_mode(0o666);
        let make = || rustix::fs::mknodat(CWD, &device.path, kind, mode, number);
        let made = match make() {
            Err(Errno::NOENT) => {
                let parent = Path::new(&device.path).parent().unwrap_or(Path::new("/"));
                std::fs::create_dir_all(parent).map_err(to(format_args!("make {}", parent.display())))?;
                make()
            }
            result => result,
        };
        match made {
            // The step brings a /dev of its own.
            Err(Errno::EXIST | Errno::ROFS) => {}
            Err(error) => return Err(to(format_args!("make {}", device.path))(error)),
            // Past the umask.
            Ok(()) => {
                rustix::fs::chmod(&device.path, mode).map_err(to(format_args!("open up {}", device.path)))?
            }
        }
    }
    Ok(())
}

fn make_device_links() -> Result<(), InitError> {
    const LINKS: [(&str, &str); 6] = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("/proc/kcore", "/dev/core"),
        ("pts/ptmx", "/dev/ptmx"),
    ];
    for (target, path) in LINKS {
        if path == "/dev/core" && !Path::new(target).exists() {
            continue;
        }
        match rustix::fs::symlink(target, path) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS | Errno::NOENT) => {}
            Err(error) => return Err(to(format_args!("make {path}"))(error)),
        }
    }
    Ok(())
}

fn open_path(path: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Mounts a path on itself, read-only with all that is below it. What is not there needs nothing.
fn make_readonly(path: &str) -> io::Result<()> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let clone = match open_tree(CWD, path, flags) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result?,
    };
    mount_setattr(&clone, true, libc::MOUNT_ATTR_RDONLY, 0)?;
    attach(clone.as_fd(), CWD, Path::new(path))
}

/// Covers a file by `/dev/null` and a directory by an empty one.
fn mask(path: &str) -> io::Result<()> {
    let point = match open_path(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        result => result?,
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&point)?.st_mode) == FileType::Directory {
        let flags = (libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC) as u32;
        return mount_file_system("tmpfs", &point, flags, "mode=755,size=0,nr_inodes=1").or_else(|error| {
            // Limits that some kernel does not take are no loss.
            if error.kind() == io::ErrorKind::InvalidInput {
                mount_file_system("tmpfs", &point, flags, "mode=755")
            } else {
                Err(error)
            }
        });
    }
    attach_on(clone_of(Path::new("/dev/null"))?.as_fd(), point.as_fd())
}

/// Gives the step's user namespace a `binfmt_misc` of its own with one emulator; the host's stays as it is.
fn register_binfmt(line: &str) -> Result<OwnedFd, InitError> {
    let what = "mount a binfmt_misc";
    let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC).map_err(to(what))?;
    fsconfig_create(context.as_fd()).map_err(to(what))?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let fs = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(to(what))?;
    let register = rustix::fs::openat(&fs, "register", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(to("open binfmt_misc's register"))?;
    rustix::io::write(&register, line.as_bytes()).map_err(to("register an emulator"))?;
    Ok(fs)
}
