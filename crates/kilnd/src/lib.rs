//! The builder daemon: settings, listeners, the Control service, builds, history, garbage collection.
#![deny(unsafe_code)]

pub mod builds;
pub mod idle;
pub mod listen;

pub mod settings;
