//! The system call filter of sandboxed steps: Docker's default profile, for a given set of capabilities.

mod compile;
mod profile;
mod syscalls;

use std::io;

use oci_spec::runtime::LinuxSeccomp;

use crate::capability::CapabilitySet;
use crate::sys::FilterInstruction;

/// A compiled filter.
pub type Program = Vec<FilterInstruction>;

/// The default profile as an OCI runtime spec has it, for a process with `bounding` capabilities on this kernel. `None` on
/// an architecture without system call table here.
pub fn default_profile(bounding: CapabilitySet) -> Option<LinuxSeccomp> {
    profile::for_process(bounding, syscalls::Table::native()?)
}

/// Compiles a filter of an OCI runtime spec.
///
/// # Errors
/// `InvalidData` for an architecture, action or flag that this runtime does not have.
pub fn compile(seccomp: &LinuxSeccomp) -> io::Result<Program> {
    compile::compile(seccomp)
}
