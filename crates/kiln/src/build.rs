//! `kiln build`: from flags to a request, through the build, to its results.

mod cache;
mod call;
mod fetch;
mod git;
mod inputs;
mod oci_index;
mod options;
mod outcome;
mod outputs;
mod provenance;
mod request;
mod run;
mod sink;
mod solve;
mod stdin;

pub use cache::Caches;
pub use inputs::{Inputs, is_git_ssh};
pub use options::Options;
pub use outputs::{Export, Target};
pub use run::run;
pub use sink::{ChannelSink, FileSink, channel};
