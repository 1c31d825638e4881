//! Runs one build step: a description of a process in a root file system becomes an OCI runtime spec, the spec becomes
//! isolated processes, and when they are gone nothing of them is left on the host.
//!
//! * [`Executor`] runs a [`Step`] and [`Executor::exec`] adds processes to a running one;
//! * [`reexec::dispatch`] must be the first call of `main` in the program that embeds this crate: the embedded runtime is
//!   that same program, executed again;
//! * [`userns`] makes a plain user's daemon root of a user namespace of its own;
//! * [`emulation`] knows which foreign platforms this machine can run.
//!
//! The crate knows nothing of images, caches or builds: root file systems and mounts come as plain data. It needs
//! `unsafe` because `clone3`, `bpf` and `seccomp` have no safe wrapper; each block says why it is sound.

mod beneath;
mod bundle;
mod capability;
mod cgroup;
mod embedded;
pub mod emulation;
mod error;
mod executor;
mod hosts;
mod id;
mod kernel;
mod mount;
pub mod network;
mod oci_runtime;
pub mod reexec;
mod resolv;
mod runtime;
mod seccomp;
mod spec;
mod stdio;
mod step;
mod streams;
mod stubs;
mod sys;
mod user;
pub mod userns;

pub use error::{Error, Result};
pub use executor::{Dns, Executor, ExecutorConfig, ExitStatus, Runtime};
pub use mount::MountError;
pub use stdio::{Control, InputStream, OutputStream, Stdio, WinSize};
pub use step::{
    Arch, BindMount, ExecProcess, HostIp, MountSource, NetMode, OverlayMount, OverlayUpper, Process,
    Resources, RootMount, SecurityMode, Step, StepMount, TmpfsMount, Ulimit,
};
pub use user::UserError;
