//! The mounts of a step: what every container has, then the step's own.

use oci_spec::runtime::Mount;

use crate::{SecurityMode, Step};

const SHM_DEFAULT_BYTES: u64 = 64 << 20;

/// Which mount of a step is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreparedIndex {
    ResolvConf,
    Hosts,
    /// Index into [`Step::mounts`].
    Step(usize),
}

/// All mounts in order, each with the one of the step's behind it, if there is one.
pub fn all(step: &Step, rootless: bool) -> (Vec<Mount>, Vec<Option<PreparedIndex>>) {
    let writable = step.security == SecurityMode::Insecure;
    let mut all: Vec<(Mount, Option<PreparedIndex>)> = Vec::new();
    let mut put = |mount: Mount, index: Option<PreparedIndex>| match all
        .iter_mut()
        .find(|(m, _)| m.destination() == mount.destination())
    {
        Some(slot) => *slot = (mount, index),
        None => all.push((mount, index)),
    };
    let kernel_mode = if writable { "rw" } else { "ro" };
    let shm = if step.shm_size_bytes > 0 { step.shm_size_bytes } else { SHM_DEFAULT_BYTES };
    let shm = format!("size={}k", shm.div_ceil(1024));
    put(kernel("/proc", "proc", &["nosuid", "noexec", "nodev"]), None);
    put(kernel("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]), None);
    // Group 5 (tty) is not mapped in every user namespace.
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    put(kernel("/dev/pts", "devpts", if rootless { &pts[..5] } else { &pts }), None);
    put(kernel("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]), None);
    put(kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]), None);
    put(kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", kernel_mode]), None);
    let file = ["nosuid", "noexec", "nodev", "rbind", "ro"];
    put(bind("/etc/resolv.conf", &file), Some(PreparedIndex::ResolvConf));
    put(bind("/etc/hosts", &file), Some(PreparedIndex::Hosts));
    put(kernel("/sys/fs/cgroup", "cgroup", &[kernel_mode, "nosuid", "noexec", "nodev"]), None);
    for (i, mount) in step.mounts.iter().enumerate() {
        let mut options = vec!["rbind"];
        options.extend(mount.options.iter().map(String::as_str));
        if mount.readonly {
            options.push("ro");
        }
        put(bind(&absolute(&mount.dest), &options), Some(PreparedIndex::Step(i)));
    }
    all.into_iter().unzip()
}

fn absolute(dest: &str) -> String {
    if dest.starts_with('/') { dest.to_owned() } else { format!("/{dest}") }
}

fn kernel(dest: &str, typ: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(dest.into());
    mount.set_typ(Some(typ.to_owned()));
    mount.set_source(Some(typ.into()));
    mount.set_options(Some(options.iter().map(|o| (*o).to_owned()).collect()));
    mount
}

fn bind(dest: &str, options: &[&str]) -> Mount {
    kernel(dest, "bind", options)
}
