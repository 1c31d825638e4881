//! Why a vertex ran or did not: every decision is an event of the build.

use crate::{Digest, RecordId};

/// Why nothing was found under the keys of an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MissReason {
    /// The vertex is not to be looked up.
    IgnoreCache,
    /// An op without inputs whose digest was never seen.
    UnknownSource {
        /// The digest.
        digest: Digest,
    },
    /// The op was never seen with these inputs: the listed ones lead nowhere, so it is they, or the op, that
    /// differ from every earlier run. If none is listed, each input was seen with the op, but not together.
    InputsDiffer {
        /// Inputs without any match.
        changed: Vec<usize>,
        /// Inputs for which earlier runs exist.
        matched: Vec<usize>,
    },
    /// The key is known but its result has been pruned.
    NoRecord,
    /// A record was found and could not be loaded.
    LoadFailed {
        /// Which.
        record: RecordId,
        /// Why.
        error: String,
    },
}

/// One decision of the solver about one vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A key of the edge was looked up.
    KeyTried {
        /// Which input it came from, `None` for an op without inputs.
        input: Option<usize>,
        /// The key's digest.
        key: Digest,
        /// It was computed from the input's content.
        content: bool,
        /// Whether something was found that the op made of it.
        matched: bool,
    },
    /// A record was found and is used.
    Hit {
        /// The record.
        record: RecordId,
        /// Name of the cache that has it.
        cache: String,
        /// The content of an input had to be looked at.
        content: bool,
    },
    /// No record, so the op runs.
    Miss(MissReason),
    /// Another vertex with the same keys is running or has just run; its result is taken.
    SharedWith {
        /// That vertex.
        vertex: Digest,
    },
}
