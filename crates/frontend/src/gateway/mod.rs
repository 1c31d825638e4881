//! The gateway: a bridge as the gRPC service `moby.buildkit.v1.frontend.LLBBridge`, for clients that make up
//! their builds themselves (as Buildx does) and for frontends that run in containers.
//!
//! A [`Forwarder`] is one such build. A [`Gateway`] serves many, told apart by what the client says in the
//! metadata of its calls, or a single one where the connection says it all.

mod convert;
mod exec;
mod forwarder;
pub mod image;
mod registry;
mod service;
mod signals;
mod stdio;

pub use convert::{meta_of_message, meta_to_message, platform_to_message};
pub use forwarder::Forwarder;
pub use registry::{BUILD_ID_KEY, Gateway, Registration};
