//! What belongs to the Docker CLI: its plugin protocol, its configuration, its contexts and its engine.

pub mod config;
pub mod context;
pub mod credentials;
pub mod engine;
pub mod plugin;

pub use plugin::GlobalFlags;
