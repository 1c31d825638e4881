//! What a frontend may ask of the daemon.

use crate::{Error, Solution};
use async_trait::async_trait;
use bytes::Bytes;
use kiln_oci::{Platform, Timestamp};
use kiln_proto::{fsutil_types, pb, sourcepolicy};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncWrite};

/// What starts a frontend.
#[derive(Clone, Debug, Default)]
pub struct FrontendRequest {
    /// What the client asks for, such as `filename` and `build-arg:x`.
    pub opts: BTreeMap<String, String>,
    /// Graphs that the client hands over, by name.
    pub inputs: BTreeMap<String, pb::Definition>,
    /// The session that local files come from.
    pub session_id: String,
    /// Names the build; makes local sources differ from those of other builds.
    pub build_id: String,
}

/// A cache to look into.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheImport {
    /// Such as `registry`.
    pub kind: String,
    /// What the kind needs.
    pub attrs: BTreeMap<String, String>,
}

/// Asks to solve a graph, or to run a frontend.
#[derive(Clone, Debug, Default)]
pub struct SolveRequest {
    /// The graph; with a frontend, none.
    pub definition: Option<pb::Definition>,
    /// The frontend; empty: the graph.
    pub frontend: String,
    /// For the frontend.
    pub frontend_opts: BTreeMap<String, String>,
    /// For the frontend.
    pub frontend_inputs: BTreeMap<String, pb::Definition>,
    /// Caches for the graph.
    pub cache_imports: Vec<CacheImport>,
    /// Rules about sources, besides those of the build.
    pub source_policies: Vec<sourcepolicy::Policy>,
    /// Wait for the results instead of handing out promises.
    pub evaluate: bool,
}

/// Part of a file. A length of 0 means: to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Which digest of a download is wanted besides the usual one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A digest of a download with something behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// How.
    pub algorithm: ChecksumAlgorithm,
    /// What is hashed behind the body.
    pub suffix: Bytes,
}

/// How to look at a source.
#[derive(Clone, Debug, Default)]
pub struct MetaRequest {
    /// The platform wanted of an image.
    pub platform: Option<Platform>,
    /// The step's name in displays; empty: made up from the source.
    pub log_name: String,
    /// `default`, `pull` or `local`.
    pub resolve_mode: String,
    /// Of an image only the digest is wanted.
    pub no_config: bool,
    /// The image's attestation chain is wanted.
    pub attestation_chain: bool,
    /// Attestations of these predicate types are wanted.
    pub resolve_attestations: Vec<String>,
    /// Session and store of an image in a client's OCI layout.
    pub oci_store: Option<(String, String)>,
    /// The commit and tag of a repository are wanted.
    pub git_objects: bool,
    /// A further digest of a download is wanted.
    pub checksum: Option<ChecksumRequest>,
    /// Rules about sources, besides those of the build.
    pub source_policies: Vec<sourcepolicy::Policy>,
}

/// What is known about an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImageMeta {
    /// Digest of its manifest or index.
    pub digest: String,
    /// The config document; empty if it was not wanted.
    pub config: Bytes,
    /// Its signed parts.
    pub attestation_chain: Option<kiln_proto::frontend::AttestationChain>,
}

/// What is known about a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitMeta {
    /// The object that the reference names.
    pub checksum: String,
    /// The full reference.
    pub reference: String,
    /// The commit, if that is another object.
    pub commit_checksum: String,
    /// The commit as git stores it.
    pub commit_object: Bytes,
    /// The tag as git stores it.
    pub tag_object: Bytes,
}

/// What is known about a download.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMeta {
    /// Digest of the body.
    pub checksum: String,
    /// What it would be stored as.
    pub filename: String,
    /// When the server says it changed last.
    pub last_modified: Option<Timestamp>,
    /// The further digest, with its suffix.
    pub checksum_response: Option<(String, Bytes)>,
}

/// What is known about a source.
#[derive(Clone, Debug, Default)]
pub struct SourceMeta {
    /// The source as source policies left it.
    pub source: pb::SourceOp,
    /// If it is an image.
    pub image: Option<ImageMeta>,
    /// If it is a repository.
    pub git: Option<GitMeta>,
    /// If it is a download.
    pub http: Option<HttpMeta>,
}

/// Something the user should know.
#[derive(Clone, Debug, Default)]
pub struct Warning {
    /// The vertex to show it at.
    pub vertex: String,
    /// Grows with unimportance.
    pub level: i64,
    /// One line.
    pub short: Bytes,
    /// More lines.
    pub detail: Vec<Bytes>,
    /// Where to read on.
    pub url: String,
    /// The file it is about.
    pub source: Option<pb::SourceInfo>,
    /// The lines there.
    pub ranges: Vec<pb::Range>,
}

/// A worker as frontends see it.
#[derive(Clone, Debug, Default)]
pub struct WorkerInfo {
    /// Its name.
    pub id: String,
    /// What it says about itself.
    pub labels: BTreeMap<String, String>,
    /// What it can build, the preferred one first.
    pub platforms: Vec<Platform>,
}

/// A mount of a container.
#[derive(Clone, Debug)]
pub struct ContainerMount<R> {
    /// As in an exec op; its `input` and `output` mean nothing.
    pub mount: pb::Mount,
    /// The files; none for an empty or special mount.
    pub reference: Option<R>,
}

/// Asks for a container in which processes can be started.
#[derive(Clone, Debug)]
pub struct ContainerRequest<R> {
    /// Its name, the frontend's choice.
    pub id: String,
    /// The first with target `/` is the root.
    pub mounts: Vec<ContainerMount<R>>,
    /// Network of its processes.
    pub network: pb::NetMode,
    /// Platform of its processes.
    pub platform: Option<Platform>,
    /// Lines of `/etc/hosts`.
    pub extra_hosts: Vec<pb::HostIp>,
    /// Name of the machine; empty: the default.
    pub hostname: String,
}

/// Size of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u32,
    /// Characters a line.
    pub columns: u32,
}

/// What a process is given to read and write; what is not given is empty or thrown away.
#[derive(Default)]
pub struct ProcessIo {
    /// Standard input.
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Standard output.
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard error.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
}

/// Asks for a process in a container.
#[derive(Clone, Debug, Default)]
pub struct ProcessRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// `user[:group]`.
    pub user: String,
    /// Working directory.
    pub cwd: String,
    /// With a terminal.
    pub tty: bool,
    /// Its privileges.
    pub security: pb::SecurityMode,
    /// Variables whose values are secrets.
    pub secret_env: Vec<pb::SecretEnv>,
    /// Removes the mount stubs that were not there before.
    pub remove_mount_stubs_recursive: bool,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEnd {
    /// Its exit code.
    pub code: u32,
    /// Why it could not be run, or BuildKit's text about the code.
    pub error: Option<String>,
}

/// A process that has been started. Dropping the handle kills it.
#[async_trait]
pub trait Process: Send + Sync {
    /// Waits for its end; all output has been written by then.
    async fn wait(&self) -> Result<ProcessEnd, Error>;
    /// Sends it a signal by its number.
    async fn signal(&self, signal: i32) -> Result<(), Error>;
    /// Tells its terminal a new size.
    async fn resize(&self, size: WindowSize) -> Result<(), Error>;
}

/// A container in which processes can be started.
#[async_trait]
pub trait Container: Send + Sync {
    /// Starts a process; the first one is the container's own, which takes the others along when it ends.
    async fn start(&self, request: ProcessRequest, io: ProcessIo) -> Result<Box<dyn Process>, Error>;
    /// A file of one of its mounts.
    async fn read_file(&self, mount: usize, path: &str, range: Option<FileRange>) -> Result<Bytes, Error>;
    /// A directory of one of its mounts.
    async fn read_dir(
        &self,
        mount: usize,
        path: &str,
        include_pattern: &str,
    ) -> Result<Vec<fsutil_types::Stat>, Error>;
    /// What a path of one of its mounts is.
    async fn stat_file(&self, mount: usize, path: &str) -> Result<fsutil_types::Stat, Error>;
    /// Ends all its processes and waits until nothing is left of it.
    async fn release(&self) -> Result<(), Error>;
}

/// What a frontend may ask of the daemon on behalf of one build. Calls may come at the same time.
#[async_trait]
pub trait Bridge: Send + Sync + 'static {
    /// A result, possibly only promised. Cheap to clone.
    type Ref: Clone + Send + Sync + 'static;

    /// The workers, the default one first. There is at least one, with at least one platform.
    fn workers(&self) -> Vec<WorkerInfo>;

    /// Solves a graph or runs a frontend. An empty graph gives an empty result.
    async fn solve(&self, request: SolveRequest) -> Result<Solution<Self::Ref>, Error>;

    /// The graph that a result is promised from.
    fn definition(&self, reference: &Self::Ref) -> pb::Definition;

    /// Waits for a result.
    async fn evaluate(&self, reference: &Self::Ref) -> Result<(), Error>;

    /// Looks at a source without fetching it all.
    async fn resolve_source_meta(
        &self,
        source: pb::SourceOp,
        request: MetaRequest,
    ) -> Result<SourceMeta, Error>;

    /// A file of a result. [`Error::is_not_found`] if there is none.
    async fn read_file(
        &self,
        reference: &Self::Ref,
        path: &str,
        range: Option<FileRange>,
    ) -> Result<Bytes, Error>;

    /// A directory of a result, in the order of the names.
    async fn read_dir(
        &self,
        reference: &Self::Ref,
        path: &str,
        include_pattern: &str,
    ) -> Result<Vec<fsutil_types::Stat>, Error>;

    /// What a path of a result is.
    async fn stat_file(&self, reference: &Self::Ref, path: &str) -> Result<fsutil_types::Stat, Error>;

    /// Shows a warning to the user.
    async fn warn(&self, warning: Warning) -> Result<(), Error>;

    /// Makes a container.
    async fn new_container(&self, request: ContainerRequest<Self::Ref>) -> Result<Box<dyn Container>, Error>;
}
