//! What end to end tests stand on: the real programs, each with a state of its own.
//!
//! A [`Place`] is one user's world in a temporary folder: HOME, the XDG folders, an embedded `kilnd` that nobody shares.
//! A [`Registry`] is Debian's `docker-registry` on a free loopback port. [`bases`] holds the base images, made once per target
//! folder by `examples/bases/make.sh`. Programs that are not there fail the test with the command that installs them:
//! a test never passes because something was missing.
#![forbid(unsafe_code)]

pub mod bases;
mod place;
mod programs;
mod registry;

pub use place::{Output, Place};
pub use programs::{have, kiln_binary, program, target_folder};
pub use registry::Registry;
