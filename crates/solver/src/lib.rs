//! The solver: given a graph of operations and one edge of it, finds out by cache keys what does not have to
//! run, runs the rest once however many builds want it, and hands back the result.
//!
//! It knows graphs, keys, jobs and results. It does not know containers, files, registries, protobuf, the
//! clock (see [`Clock`]) or where keys are kept (see [`KeyStore`] and [`ResultStore`]).
//!
//! Terms, in BuildKit's sense:
//! * a [`Vertex`] is an [`Op`] with inputs; an [`Edge`] is one output of a vertex;
//! * a *definition key* of an edge is the digest of its op with the keys of its inputs; a *content key* is
//!   the digest of what an input actually holds. [`CacheKey`] is either;
//! * a [`Record`] is a stored result found under a key; a key may be known without any record;
//! * a [`Job`] is one build. Vertices are shared by all jobs that load them, and live as long as one of these.
//!
//! How an edge is solved, each stage only when the one before has found no record:
//! 1. *fast*: the op's cache map and the fast keys of all inputs; nothing is executed (sources may resolve);
//! 2. *slow*: inputs without a match give their own slow keys; then the content of inputs is digested, for
//!    which these are solved;
//! 3. *run*: all inputs are solved, the op is executed, its result is saved under all keys.
//!
//! Each stage of each vertex is one shared computation. It starts when somebody wants it, and stops when
//! nobody does any more.
#![forbid(unsafe_code)]

mod active;
mod cache;
mod clock;
mod context;
mod digest;
mod edge;
mod error;
mod exec;
mod export;
mod graph;
mod hub;
mod inflight;
mod job;
mod key;
mod op;
mod probe;
mod progress;
mod reason;
mod save;
mod solver;
mod stage;
mod store;

pub mod testsuite;

pub use cache::{Cache, CacheSource};
pub use clock::{Clock, SystemClock};
pub use context::{Cancelled, OpContext};
pub use digest::{Digest, root_key};
pub use error::{SolveError, SolveErrorKind, StoreError};
pub use export::{ExportInput, ExportOptions, ExportRecord, ExportResult, export_records};
pub use graph::{Edge, Graph, GraphError, ProgressGroup, Vertex, VertexOptions};
pub use job::{BuildOptions, CachedResult, Job, JobId};
pub use key::{CacheKey, KeyInput, KeyOutput, RecordRef};
pub use op::{CacheMap, ContentKeyFn, InputMap, Op, PreprocessFn};
pub use progress::{Event, Log, NoProgress, Progress, ProgressSink, Status, StatusId, VertexEvent, Warning};
pub use reason::{Decision, MissReason};
pub use solver::{Solver, SolverOptions};
pub use store::memory::{MemoryKeyStore, MemoryResultStore};
pub use store::{Backlink, KeyId, KeyStore, Link, Record, RecordId, ResultStore, whole_millis};
