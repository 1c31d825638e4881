//! Mounts as handles: the sources of a step's mounts become detached mounts, which appear in no mount table until the step's
//! own mount namespace takes them, and which are gone when the last handle and that namespace are.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, open_tree, unmount,
};

use crate::sys::mount_setattr;
use crate::{MountSource, OverlayMount, TmpfsMount};

/// A mount that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("cannot open `{path}` to mount it")]
    Source {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot mount an overlay of {layers} directories")]
    Overlay {
        layers: usize,
        #[source]
        source: io::Error,
    },
    #[error("an overlay without directories")]
    EmptyOverlay,
    #[error("unknown mount option `{option}`")]
    Option { option: String },
    #[error("cannot {what}")]
    Call {
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

fn call(what: &'static str) -> impl Fn(Errno) -> MountError {
    move |source| MountError::Call { what, source: source.into() }
}

/// A detached mount.
#[derive(Debug)]
pub struct Detached {
    pub fd: OwnedFd,
    recursive: bool,
}

impl Detached {
    /// Makes the mount of a source. `scratch` is an empty directory for kernels that cannot mount an overlay detached.
    pub fn make(source: &MountSource, scratch: &Path) -> Result<Self, MountError> {
        let made = match source {
            MountSource::Bind(bind) => bind_mount(&bind.path, bind.recursive)?,
            MountSource::Overlay(overlay) => overlay_mount(overlay, scratch)?,
            MountSource::Tmpfs(tmpfs) => tmpfs_mount(tmpfs)?,
            MountSource::Fd(fd) => {
                let fd = fd.try_clone();
                let fd =
                    fd.map_err(|source| MountError::Call { what: "copy a mount's descriptor", source })?;
                Self { fd, recursive: true }
            }
        };
        // Else a mount made below it in the step would appear on the host, where its original is shared.
        let private = mount_setattr(&made.fd, made.recursive, 0, libc::MS_PRIVATE);
        private.map_err(|source| MountError::Call { what: "make a mount private", source })?;
        Ok(made)
    }

    /// Adds flags, with those of OCI mount options.
    pub fn restrict(&self, readonly: bool, options: &[String]) -> Result<(), MountError> {
        let mut set = if readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
        for option in options {
            set |= match option.as_str() {
                "ro" => libc::MOUNT_ATTR_RDONLY,
                "nosuid" => libc::MOUNT_ATTR_NOSUID,
                "nodev" => libc::MOUNT_ATTR_NODEV,
                "noexec" => libc::MOUNT_ATTR_NOEXEC,
                "rw" | "bind" | "rbind" | "private" | "rprivate" => 0,
                _ => return Err(MountError::Option { option: option.clone() }),
            };
        }
        if set == 0 {
            return Ok(());
        }
        let result = mount_setattr(&self.fd, self.recursive, set, 0);
        result.map_err(|source| MountError::Call { what: "set flags of a mount", source })
    }
}

fn bind_mount(path: &Path, recursive: bool) -> Result<Detached, MountError> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let fd = open_tree(rustix::fs::CWD, path, flags)
        .map_err(|source| MountError::Source { path: path.to_owned(), source: source.into() })?;
    Ok(Detached { fd, recursive })
}

fn tmpfs_mount(tmpfs: &TmpfsMount) -> Result<Detached, MountError> {
    let what = "mount a tmpfs";
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(call(what))?;
    if tmpfs.size_bytes > 0 {
        fsconfig_set_string(context.as_fd(), "size", tmpfs.size_bytes.to_string()).map_err(call(what))?;
    }
    if let Some(mode) = tmpfs.mode {
        fsconfig_set_string(context.as_fd(), "mode", format!("{mode:o}")).map_err(call(what))?;
    }
    fsconfig_create(context.as_fd()).map_err(call(what))?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let fd = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(call(what))?;
    Ok(Detached { fd, recursive: false })
}

fn overlay_mount(overlay: &OverlayMount, scratch: &Path) -> Result<Detached, MountError> {
    match (&overlay.lower[..], &overlay.upper) {
        ([], None) => return Err(MountError::EmptyOverlay),
        ([], Some(upper)) => return bind_mount(&upper.upper, false),
        ([only], None) => {
            let bind = bind_mount(only, false)?;
            bind.restrict(true, &[])?;
            return Ok(bind);
        }
        _ => {}
    }
    let directories = OverlayDirectories::open(overlay)?;
    let failed = |source: Errno| MountError::Overlay { layers: overlay.lower.len(), source: source.into() };
    let fd = match directories.mount_detached(overlay) {
        // Before Linux 6.5 there is no `lowerdir+`.
        Err(Errno::INVAL | Errno::NOSYS) => directories.mount_by_path(overlay, scratch).map_err(failed)?,
        result => result.map_err(failed)?,
    };
    Ok(Detached { fd, recursive: false })
}

/// The directories of an overlay, open. The kernel is told their names beneath `/proc/self/fd`: those are short, hold no
/// character that overlay options give a meaning, and tell a step nothing of the host's paths.
struct OverlayDirectories {
    lower: Vec<OwnedFd>,
    upper: Option<(OwnedFd, OwnedFd)>,
}

fn name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl OverlayDirectories {
    fn open(overlay: &OverlayMount) -> Result<Self, MountError> {
        let open = |path: &PathBuf| {
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|source| MountError::Source { path: path.clone(), source: source.into() })
        };
        let lower = overlay.lower.iter().map(open).collect::<Result<_, _>>()?;
        let upper = overlay.upper.as_ref().map(|u| Ok((open(&u.upper)?, open(&u.work)?))).transpose()?;
        Ok(Self { lower, upper })
    }

    fn mount_detached(&self, overlay: &OverlayMount) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let context = context.as_fd();
        for lower in &self.lower {
            fsconfig_set_string(context, "lowerdir+", name(lower))?;
        }
        if let Some((upper, work)) = &self.upper {
            fsconfig_set_string(context, "upperdir", name(upper))?;
            fsconfig_set_string(context, "workdir", name(work))?;
        }
        if overlay.userxattr {
            fsconfig_set_flag(context, "userxattr")?;
        }
        if overlay.volatile && self.upper.is_some() {
            fsconfig_set_flag(context, "volatile")?;
        }
        // Layers must make sense each on its own, whatever the module's defaults are.
        for (key, value) in SELF_CONTAINED {
            fsconfig_set_string(context, key, value)?;
        }
        fsconfig_create(context)?;
        fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    fn mount_by_path(&self, overlay: &OverlayMount, scratch: &Path) -> Result<OwnedFd, Errno> {
        let lower: Vec<String> = self.lower.iter().map(name).collect();
        let mut options = format!("lowerdir={}", lower.join(":"));
        if let Some((upper, work)) = &self.upper {
            options.push_str(&format!(",upperdir={},workdir={}", name(upper), name(work)));
        }
        if overlay.userxattr {
            options.push_str(",userxattr");
        }
        if overlay.volatile && self.upper.is_some() {
            options.push_str(",volatile");
        }
        for (key, value) in SELF_CONTAINED {
            options.push_str(&format!(",{key}={value}"));
        }
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        let target = tempdir_in(scratch)?;
        let mounted =
            mount("overlay", &target, "overlay", MountFlags::empty(), options.as_c_str()).and_then(|()| {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let clone = open_tree(rustix::fs::CWD, &target, flags);
                unmount(&target, UnmountFlags::DETACH)?;
                clone
            });
        rustix::fs::rmdir(&target)?;
        mounted
    }
}

const SELF_CONTAINED: [(&str, &str); 3] =
    [("index", "off"), ("redirect_dir", "nofollow"), ("metacopy", "off")];

fn tempdir_in(parent: &Path) -> Result<PathBuf, Errno> {
    let path = parent.join(crate::id::random());
    rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700))?;
    Ok(path)
}
