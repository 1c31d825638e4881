//! Status events of a build, as the daemon streams them. Each event is a delta; a vertex is sent again when it changes.
//!
//! The JSON form (through `serde`) is the one line of a `rawjson` display: field names, order and omissions are those
//! of BuildKit's `SolveStatus`, byte strings are base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};

use crate::Timestamp;

/// Digest of a vertex, as the daemon wrote it. Only compared, never parsed.
pub type VertexDigest = String;

/// What changed since the last event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SolveStatus {
    /// Vertices that are new or changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vertexes: Vec<Vertex>,
    /// Progress of parts of a vertex, such as the transfer of a layer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<VertexStatus>,
    /// Output of steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<VertexLog>,
    /// Warnings, such as those of build checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<VertexWarning>,
}

/// One node of the build graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Vertex {
    /// Its identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: VertexDigest,
    /// The vertices that it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<VertexDigest>,
    /// What a person sees: `[2/3] RUN make`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// When it began to be worked on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When that ended. Work on one vertex may start and stop more than once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
    /// Whether the result came out of the cache.
    #[serde(skip_serializing_if = "is_false")]
    pub cached: bool,
    /// Why it failed; empty where it did not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Vertices of one group are shown as one.
    #[serde(rename = "progressGroup", skip_serializing_if = "Option::is_none")]
    pub progress_group: Option<ProgressGroup>,
}

/// Names the group that a vertex is shown under.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgressGroup {
    /// Identity of the group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What a person sees.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A weak member alone does not make the group visible.
    #[serde(skip_serializing_if = "is_false")]
    pub weak: bool,
}

/// Progress of one part of a vertex.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VertexStatus {
    /// Names the part, and is what a person sees: `sha256:… 12MB`, `transferring context:`.
    pub id: String,
    /// The vertex it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vertex: VertexDigest,
    /// A second name, seldom set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Expected bytes; 0 where not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: i64,
    /// Bytes so far.
    pub current: i64,
    /// When this was measured.
    pub timestamp: Timestamp,
    /// When the part began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When the part ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<Timestamp>,
}

/// A piece of a step's output: untrusted bytes, cut anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VertexLog {
    /// The vertex it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vertex: VertexDigest,
    /// 1 for stdout, 2 for stderr.
    #[serde(skip_serializing_if = "is_zero")]
    pub stream: i64,
    /// The bytes.
    #[serde(serialize_with = "base64_bytes")]
    pub data: Bytes,
    /// When they were written.
    pub timestamp: Timestamp,
}

/// A warning about the build's definition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VertexWarning {
    /// The vertex it was found at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vertex: VertexDigest,
    /// Severity; higher is less severe.
    #[serde(skip_serializing_if = "is_zero")]
    pub level: i64,
    /// One line.
    #[serde(serialize_with = "base64_bytes", skip_serializing_if = "Bytes::is_empty")]
    pub short: Bytes,
    /// More lines.
    #[serde(serialize_with = "base64_list", skip_serializing_if = "Vec::is_empty")]
    pub detail: Vec<Bytes>,
    /// Where to read on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// The file it is about.
    #[serde(rename = "sourceInfo", skip_serializing_if = "Option::is_none")]
    pub source_info: Option<SourceInfo>,
    /// The places in it.
    #[serde(rename = "range", skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<Range>,
}

/// A definition file with its text, so that lines of it can be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceInfo {
    /// Name as the frontend knows it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filename: String,
    /// The whole text.
    #[serde(serialize_with = "base64_bytes", skip_serializing_if = "Bytes::is_empty")]
    pub data: Bytes,
    /// `Dockerfile` for one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub language: String,
}

/// From one position to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// First position.
    pub start: Position,
    /// Last position; line 0 where the frontend gave only a start.
    pub end: Position,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Position {
    /// Line, counted from 1.
    #[serde(skip_serializing_if = "is_zero32")]
    pub line: i32,
    /// Column, counted from 0.
    #[serde(skip_serializing_if = "is_zero32")]
    pub character: i32,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_zero32(value: &i32) -> bool {
    *value == 0
}

fn base64_bytes<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

fn base64_list<S: Serializer>(list: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(list.len()))?;
    for data in list {
        seq.serialize_element(&STANDARD.encode(data))?;
    }
    seq.end()
}
