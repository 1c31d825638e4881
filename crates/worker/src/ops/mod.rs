//! What each kind of vertex does.

pub mod exec;
pub mod file;
pub mod graph;
pub mod keys;
pub mod links;
pub mod mounts;
pub mod private;
pub mod source;

pub use keys::UnsafeContentCache;
