//! Which platforms this machine can run, natively or by emulation.

use std::path::{Path, PathBuf};

use crate::Arch;

/// One platform that steps can run on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emulator {
    pub arch: Arch,
    /// The emulator's program; `None` where the kernel runs the platform itself (natively or by a system registration).
    pub program: Option<PathBuf>,
}

/// Platforms this machine can run, the native one first, in the order in which a worker announces them.
pub fn supported_platforms(_emulator_dirs: &[PathBuf]) -> Vec<Emulator> {
    Vec::new()
}

/// This machine's own platform, without variant.
pub fn native() -> Arch {
    Arch::new("amd64", "")
}

/// Directories in which emulators are looked for by default.
pub fn default_dirs() -> Vec<PathBuf> {
    vec![Path::new("/usr/bin").into(), Path::new("/usr/local/bin").into()]
}
