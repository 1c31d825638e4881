//! Steps that give new states.

mod exec;
mod file;
mod graph_ops;
mod source;

pub use exec::{ExecState, MountInfo, RunInfo, SecretInfo, SshInfo};
pub use file::{CopyInfo, FileActions, MkdirInfo, MkfileInfo, OwnedInfo, Owner, RmInfo};
pub use graph_ops::PassthroughInput;
pub use source::{
    FileInfo, GitSource, HttpSource, ImageSource, LocalDiffer, LocalSource, OciLayoutSource, ResolveMode,
};
