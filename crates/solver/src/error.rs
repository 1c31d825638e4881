//! Errors of the solver. They are shared by everyone who waited for the same vertex, hence cheap to clone.

use crate::{Digest, Op};
use std::fmt;
use std::sync::Arc;

/// A key or result store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct StoreError {
    what: String,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    not_found: bool,
}

impl StoreError {
    /// `what` was tried (say, "load record abc"), and failed for the reason given.
    pub fn new(what: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        StoreError { what: what.into(), source: Some(Arc::new(source)), not_found: false }
    }

    /// Nothing of that name: the record was pruned, say.
    pub fn not_found(what: impl Into<String>) -> Self {
        StoreError { what: what.into(), source: None, not_found: true }
    }

    /// Whether the thing is simply not there.
    pub fn is_not_found(&self) -> bool {
        self.not_found
    }
}

/// What went wrong, see [`SolveError`].
pub enum SolveErrorKind<O: Op> {
    /// The op failed: its cache map or its execution.
    Op(Arc<O::Error>),
    /// The content of an input could not be digested, or the input not be prepared.
    ContentKey {
        /// Which input.
        input: usize,
        /// Its result, for those who want to look inside.
        result: O::Output,
        /// The failure.
        error: Arc<O::Error>,
    },
    /// Nobody wanted it any more, or the solver is closing.
    Cancelled,
    /// A key or result store failed.
    Store(StoreError),
    /// The op gave fewer outputs than the edge asks for.
    MissingOutput {
        /// Asked for.
        output: usize,
        /// How many there are.
        outputs: usize,
    },
    /// The edge is not part of the graph.
    UnknownEdge(Digest),
    /// The job has been discarded.
    JobClosed,
    /// An op panicked.
    Panic(String),
}

impl<O: Op> Clone for SolveErrorKind<O> {
    fn clone(&self) -> Self {
        match self {
            SolveErrorKind::Op(error) => SolveErrorKind::Op(error.clone()),
            SolveErrorKind::ContentKey { input, result, error } => {
                SolveErrorKind::ContentKey { input: *input, result: result.clone(), error: error.clone() }
            }
            SolveErrorKind::Cancelled => SolveErrorKind::Cancelled,
            SolveErrorKind::Store(error) => SolveErrorKind::Store(error.clone()),
            SolveErrorKind::MissingOutput { output, outputs } => {
                SolveErrorKind::MissingOutput { output: *output, outputs: *outputs }
            }
            SolveErrorKind::UnknownEdge(digest) => SolveErrorKind::UnknownEdge(digest.clone()),
            SolveErrorKind::JobClosed => SolveErrorKind::JobClosed,
            SolveErrorKind::Panic(text) => SolveErrorKind::Panic(text.clone()),
        }
    }
}

/// Why an edge could not be solved, with the vertex where it happened (the deepest one, not the one asked for).
pub struct SolveError<O: Op> {
    /// The vertex that failed; `None` when no vertex is to blame.
    pub vertex: Option<Digest>,
    /// The vertex' op, whose definition may be wanted in a report.
    pub op: Option<Arc<O>>,
    /// The vertex' description ([`crate::VertexOptions::description`]).
    pub description: Arc<[(String, String)]>,
    /// What happened.
    pub kind: SolveErrorKind<O>,
}

impl<O: Op> SolveError<O> {
    pub(crate) fn plain(kind: SolveErrorKind<O>) -> Self {
        SolveError { vertex: None, op: None, description: Arc::default(), kind }
    }

    pub(crate) fn cancelled() -> Self {
        SolveError::plain(SolveErrorKind::Cancelled)
    }

    /// Whether this is no failure but the end of all interest.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.kind, SolveErrorKind::Cancelled | SolveErrorKind::JobClosed)
    }

    /// The op's own error, if that is what happened.
    pub fn op_error(&self) -> Option<&O::Error> {
        match &self.kind {
            SolveErrorKind::Op(error) | SolveErrorKind::ContentKey { error, .. } => Some(error),
            _ => None,
        }
    }
}

impl<O: Op> Clone for SolveError<O> {
    fn clone(&self) -> Self {
        SolveError {
            vertex: self.vertex.clone(),
            op: self.op.clone(),
            description: self.description.clone(),
            kind: self.kind.clone(),
        }
    }
}

impl<O: Op> From<StoreError> for SolveError<O> {
    fn from(error: StoreError) -> Self {
        SolveError::plain(SolveErrorKind::Store(error))
    }
}

impl<O: Op> fmt::Display for SolveError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            // The op's error is what people have to read; the vertex is data beside it.
            SolveErrorKind::Op(error) => fmt::Display::fmt(error, f),
            SolveErrorKind::ContentKey { .. } => f.write_str("failed to compute cache key"),
            SolveErrorKind::Cancelled => f.write_str("context canceled"),
            SolveErrorKind::Store(error) => fmt::Display::fmt(error, f),
            SolveErrorKind::MissingOutput { output, outputs } => {
                write!(f, "output {output} was asked for, but the op has {outputs}")
            }
            SolveErrorKind::UnknownEdge(digest) => write!(f, "vertex {digest} is not part of the graph"),
            SolveErrorKind::JobClosed => f.write_str("the build has ended"),
            SolveErrorKind::Panic(text) => write!(f, "internal error: an operation panicked: {text}"),
        }
    }
}

impl<O: Op> fmt::Debug for SolveError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SolveError")
            .field("vertex", &self.vertex)
            .field("error", &format_args!("{self}"))
            .finish_non_exhaustive()
    }
}

impl<O: Op> std::error::Error for SolveError<O> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            // Display shows the op's error itself, so the chain goes on behind it.
            SolveErrorKind::Op(error) => error.source(),
            SolveErrorKind::ContentKey { error, .. } => Some(&**error),
            SolveErrorKind::Store(error) => error.source(),
            _ => None,
        }
    }
}
