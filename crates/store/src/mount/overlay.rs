//! The mount calls.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::OverlaySpec;
use crate::error::{Error, Result};

/// Mounts an overlay that is attached nowhere. Each lower directory is given by a call of its own (`lowerdir+`, Linux
/// 6.5), so that no page-size limit cuts the list; older kernels get them in one string.
pub(super) fn mount(spec: &OverlaySpec) -> Result<OwnedFd> {
    match configure(spec, true) {
        Err(Errno::INVAL) => configure(spec, false),
        mounted => mounted,
    }
    .map_err(|error| Error::Mount { what: describe(spec), source: error.into() })
}

fn configure(spec: &OverlaySpec, each: bool) -> Result<OwnedFd, Errno> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fs = std::os::fd::AsFd::as_fd(&fs);
    if each {
        for lower in &spec.lower {
            fsconfig_set_string(fs, "lowerdir+", lower)?;
        }
    } else {
        let escape = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:");
        let all: Vec<String> = spec.lower.iter().map(|path| escape(path)).collect();
        fsconfig_set_string(fs, "lowerdir", all.join(":"))?;
    }
    if let Some((upper, work)) = &spec.upper {
        fsconfig_set_string(fs, "upperdir", upper)?;
        fsconfig_set_string(fs, "workdir", work)?;
        if spec.volatile {
            fsconfig_set_flag(fs, "volatile")?;
        }
    }
    if spec.userxattr {
        fsconfig_set_flag(fs, "userxattr")?;
    } else {
        // Layers carry neither; the system's defaults may have them on.
        fsconfig_set_string(fs, "redirect_dir", "nofollow")?;
        fsconfig_set_string(fs, "metacopy", "off")?;
    }
    fsconfig_set_string(fs, "index", "off")?;
    fsconfig_create(fs)?;
    let mut attributes = MountAttrFlags::empty();
    if spec.upper.is_none() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// A mount of one directory, attached nowhere.
pub(super) fn clone_dir(path: &Path) -> Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags)
        .map_err(|error| Error::Mount { what: format!("`{}`", path.display()), source: error.into() })
}

pub(super) fn attach(mount: BorrowedFd<'_>, target: &Path) -> Result<()> {
    move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| Error::Mount { what: format!("at `{}`", target.display()), source: error.into() })
}

fn describe(spec: &OverlaySpec) -> String {
    let top = spec.upper.as_ref().map(|(upper, _)| upper).or(spec.lower.first());
    let top = top.map(|path| path.display().to_string()).unwrap_or_default();
    format!("{} layers under `{top}`", spec.lower.len())
}
