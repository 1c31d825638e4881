//! What can be wrong with a graph. Texts that BuildKit's clients know are BuildKit's.

use crate::caps::CapError;

/// Why a graph could not be made or is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A definition without any vertex.
    #[error("invalid empty definition")]
    EmptyDefinition,
    /// Fewer vertices than a result and its source.
    #[error("invalid LLB with {0} vertexes")]
    TooFewVertices(usize),
    /// More vertices than [`crate::VERTICES_MAX`].
    #[error("definition of {0} vertices, at most {max} are taken: split the build into several", max = crate::VERTICES_MAX)]
    TooManyVertices(usize),
    /// The terminal vertex names no result.
    #[error("invalid LLB with no inputs on last vertex")]
    NoResult,
    /// A vertex that is no protobuf `pb.Op`.
    #[error("failed to parse llb proto op")]
    Decode(#[from] kiln_proto::prost::DecodeError),
    /// An input refers to a vertex that the definition does not hold.
    #[error("invalid missing input digest {0}")]
    MissingInput(String),
    /// An input refers to an output that its vertex does not have.
    #[error("invalid input {input} output index {index}")]
    InvalidOutputIndex {
        /// Which input of the vertex.
        input: usize,
        /// The output it asks for.
        index: i64,
    },
    /// A vertex depends on itself.
    #[error("invalid cycle through vertex {0}")]
    Cycle(String),
    /// A vertex whose operation this program does not know.
    #[error("could not resolve op of vertex {0}")]
    UnknownOp(String),
    /// An operation refers to an input that its vertex does not have.
    #[error("missing input {0}")]
    InputIndex(i64),
    /// A number that stands for no member of its enumeration.
    #[error("invalid {field} {value}")]
    UnknownEnum {
        /// The field's name.
        field: &'static str,
        /// What it holds.
        value: i32,
    },
    /// An operation that contradicts itself.
    #[error("invalid {0}")]
    Invalid(String),
    /// A capability that is needed and not there.
    #[error(transparent)]
    Cap(#[from] CapError),
    /// A source location points to a source file that is not listed.
    #[error("failed to find source map with index {0}")]
    SourceIndex(i32),
    /// An image reference of a source.
    #[error("failed to parse image reference `{reference}`")]
    Reference {
        /// As given.
        reference: String,
        /// What is wrong with it.
        #[source]
        source: kiln_oci::ReferenceError,
    },
    /// A late output was not set before marshalling.
    #[error("output `{0}` was not set before it was needed")]
    LateOutput(String),
    /// A step that lacks what it needs.
    #[error("{0}")]
    Incomplete(&'static str),
}
