//! The session: services of the client that the daemon calls while it builds.
//!
//! The client opens `Control.Session`, a stream of bytes in both directions, and serves gRPC *inside* it: its directories, its
//! credentials, secrets and agents, the places that results go to.
//!
//! * [`daemon`]: the sessions that are open and what can be asked of each.
//! * [`client`]: a session to open and the services in it.
//! * [`fsync`]: the file transfer that both ends speak, with sources and sinks of files.
//! * [`patterns`]: include and exclude patterns.
//! * `handles`: what a client and a daemon of one user on one machine need not send.
//!
//! Each end takes the other for hostile: paths, orders, sizes and ids that come over the wire are checked where they are read.
//! Nothing here reads the environment or a configuration file.

#![forbid(unsafe_code)]

pub mod client;
pub mod daemon;
pub mod fsync;
mod handles;
mod keys;
pub mod patterns;
mod random;
mod socket;
mod tunnel;
