//! The builder daemon: settings, listeners, the Control service, builds, history, garbage collection.
#![deny(unsafe_code)]

mod attest;
mod bridge;
mod builds;
mod content;
mod control;
mod daemon;
mod exporting;
mod garbage;
mod history;
mod idle;
mod images;
mod listen;
mod logging;
mod memory;
mod policy;
mod ready;
mod run;
pub mod settings;
mod solve;
mod step;
mod surroundings;
mod traces;
pub mod version;

pub use run::{Error, run};
