//! What the daemon is told: flags, a configuration file, and where things are by default.
//!
//! Flags win over the file, the file over the defaults. Nothing below this module reads the environment or HOME.

pub mod file;
pub mod flags;
mod merge;
pub mod provenance;
mod units;

pub use merge::{Address, Error, GcPolicy, Settings, Surroundings, TlsFiles, gc_policies, resolve};
