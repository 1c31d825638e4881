//! The embedded runtime: this program, executed again as a small helper (the *spawner*) that has one thread and forks steps
//! straight into their namespaces.
//!
//! ```text
//! daemon ──control socket──► spawner            one for the daemon's life; ends, with all steps, when the daemon does
//!    │                         │ clone3(new namespaces, into cgroup)
//!    └───────step socket─────► step             reads its plan and descriptors, sets itself up, executes the process
//! ```
//!
//! A step's socket closes when its process has been executed, or carries the error that prevented it. The spawner waits for
//! its children and reports how they ended. Steps are process 1 of their pid namespace, so the kernel ends everything in a
//! step with it.

mod client;
mod filesystem;
mod init;
mod plan;
mod process;
mod spawner;
mod wire;

pub use client::{Embedded, Joinable, Started, clone_flag};
pub use plan::EMULATOR_PATH;
pub use spawner::{ARGV0, run as run_spawner};
