//! Git repositories as sources.

mod checkout;
mod cli;
mod remote;
mod repository;

pub use cli::{GitError, GitSettings};
pub use remote::{RepositoryError, Resolved};
pub use repository::GitMetadata;
