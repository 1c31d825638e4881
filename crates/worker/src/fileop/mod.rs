//! File actions: `mkdir`, `mkfile`, `symlink`, `rm` and `copy` on the layer being written.
//!
//! Each is a function over a [`Target`]; which action works on what is [`crate::ops`]'s business.

mod actions;
pub mod chmod;
mod copy;
mod error;
mod owner;
mod place;
mod target;
mod unpack;
mod wildcard;

pub use actions::{Copying, copy, mkdir, mkfile, rm, symlink};
pub use copy::Source;
pub use error::FileError;
pub use owner::{Owner, resolve as resolve_owner};
pub use target::Target;

#[cfg(test)]
mod tests;
