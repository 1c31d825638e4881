//! The daemon's end: the sessions that are open, and what can be asked of each.

mod auth;
mod content;
mod error;
mod exporter;
mod files;
mod group;
mod handles;
mod health;
mod manager;
mod policy;
mod secrets;
mod ssh;
mod upload;

pub use auth::SessionCredentials;
pub use content::{ClientStore, StoredBlob};
pub use error::Error;
pub use files::{FileSender, FileSyncRequest};
pub use group::{APPEAR_TIMEOUT, SessionGroup};
pub use manager::{Caller, SessionId, SessionManager};
pub use secrets::Secret;
pub use ssh::ForwardedAgent;
