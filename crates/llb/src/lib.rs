//! LLB: the graph of build operations that frontends make and the daemon solves.
//!
//! Two halves meet in the protobuf form ([`kiln_proto::pb::Definition`]):
//!
//! * **making**: a [`State`] is a file system to be (or scratch) together with the settings that a next step starts from.
//!   Steps return new states; [`State::marshal`] writes the graph down. Equal steps give equal bytes, hence equal digests.
//! * **reading**: [`Graph::load`] judges a definition of anyone's and gives its vertices as typed [`Op`]s in dependency order.
//!
//! Pure: no I/O, no clock, no randomness. It knows what operations are, not how they run.

#![forbid(unsafe_code)]

pub mod attrs;
mod build;
pub mod caps;
mod constraints;
mod env;
mod error;
pub mod git_url;
mod gopath;
mod graph;
mod marshal;
mod metadata;
mod name;
mod node;
mod op;
pub mod policy;
mod rewrite;
mod source_map;
mod state;

pub use build::{
    CopyInfo, ExecState, FileActions, FileInfo, GitSource, HttpSource, ImageSource, LocalDiffer, LocalSource,
    MkdirInfo, MkfileInfo, MountInfo, OciLayoutSource, OwnedInfo, Owner, PassthroughInput, ResolveMode,
    RmInfo, RunInfo, SecretInfo, SshInfo,
};
pub use constraints::{Constraints, MarshalOptions};
pub use env::EnvList;
pub use error::Error;
pub use graph::{Edge, Graph, VERTICES_MAX, Vertex};
pub use metadata::{DESCRIPTION_CUSTOM_NAME, LinuxResources, OpMetadata, ProgressGroup};
pub use node::{LateOutput, Output};
pub use op::{
    ActionInput, BuildOp, CacheMount, CacheSharing, ChownOpt, ContentCache, CopyAction, Device, DiffOp,
    ExecOp, ExtraHost, FileAction, FileActionKind, FileOp, LLB_DEFINITION_FILE, MergeOp, Meta, MkdirAction,
    MkfileAction, Mount, MountKind, NetMode, Op, PassthroughOp, ProxyEnv, ROOT_MOUNT, RmAction, SecretEnv,
    SecretMount, SecurityMode, SourceOp, SshMount, SymlinkAction, Ulimit, UserOpt,
};
pub use source_map::{SourceLocation, SourceMap};
pub use state::{Settings, State};
