//! The little languages of the flags' values, as pure functions.

mod attest;
mod cache;
mod call;
mod contexts;
pub mod csv;
mod entitlement;
mod export;
mod filter;
mod hosts;
mod pairs;
mod platforms;
mod resources;
mod secret;
mod size;
mod ssh;
mod ulimit;

pub use attest::{Attestations, attestations};
pub use cache::{CacheEntry, cache_entries};
pub use call::{Call, call};
pub use contexts::named_contexts;
pub use entitlement::{Allowed, entitlements};
pub use export::{Annotation, Output, annotations, outputs};
pub use filter::{duration_nanos, filters};
pub use hosts::{Host, HostAddress, hosts};
pub use pairs::{build_args, labels};
pub use platforms::platforms;
pub use resources::resource_attrs;
pub use secret::{Secret, SecretSource, secrets};
pub use size::{bytes, memory_swap_bytes};
pub use ssh::{SshAgent, ssh_agents};
pub use ulimit::ulimits;

/// `true`, `1`, `T` and their like, as Go reads them.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
