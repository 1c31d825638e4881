//! The builder daemon: settings, listeners, the Control service, builds, history, garbage collection.
#![forbid(unsafe_code)]

pub mod settings;
