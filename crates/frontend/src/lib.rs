//! What stands between those who describe a build and those who carry it out.
//!
//! * [`Bridge`] is all that a frontend can ask of the daemon while it makes up its mind: solve a graph, look at
//!   a source, read files of a result, start a container;
//! * [`dockerfile`] is the built-in frontend `dockerfile.v0`: it finds the Dockerfile and the build context by
//!   way of a bridge, and has kiln-dockerfile do the thinking;
//! * [`gateway`] serves a bridge as the gRPC service `LLBBridge` to clients that build by themselves.
//!
//! A frontend's answer is a [`Solution`]. What fails is an [`Error`], which keeps the details that let a client
//! show the failing lines, wherever it came from.
#![forbid(unsafe_code)]

mod bridge;
pub mod caps;
mod details;
pub mod dockerfile;
mod error;
pub mod gateway;
pub mod sbom;
mod solution;

pub use bridge::{
    Bridge, CacheImport, ChecksumAlgorithm, ChecksumRequest, Container, ContainerMount, ContainerRequest,
    FileRange, FrontendRequest, GitMeta, HttpMeta, ImageMeta, MetaRequest, Process, ProcessEnd, ProcessIo,
    ProcessRequest, SolveRequest, SourceMeta, Warning, WindowSize, WorkerInfo,
};
pub use error::{Detail, Error};
pub use solution::{Attestation, AttestationKind, Refs, Solution, Subject, SubjectKind};
