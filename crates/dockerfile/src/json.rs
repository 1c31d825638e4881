//! JSON of subrequests: protobuf messages written field by field, as BuildKit's clients read them.

use crate::location::{Position, Range};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::pb;
use serde::Serialize;
use std::collections::BTreeMap;

/// Bytes are base64 in JSON.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The indented form of a document of ours.
pub(crate) fn to_vec<T: Serialize>(document: &T) -> Vec<u8> {
    kiln_oci::gojson::to_vec_indented(document).expect("own types with string keys always serialise")
}

/// A range as it is on the wire.
pub(crate) fn pb_range(range: &Range) -> pb::Range {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let position = |position: Position| pb::Position {
        line: number(position.line),
        character: number(position.character),
    };
    pb::Range { start: Some(position(range.start)), end: Some(position(range.end)) }
}

/// Ranges in the one source of a document.
#[derive(Serialize)]
pub(crate) struct JsonLocation {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<JsonRange>,
}

#[derive(Serialize)]
struct JsonRange {
    start: JsonPosition,
    end: JsonPosition,
}

#[derive(Serialize)]
struct JsonPosition {
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
    #[serde(skip_serializing_if = "is_zero")]
    character: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl JsonLocation {
    pub(crate) fn new(ranges: &[Range]) -> Self {
        let position =
            |position: Position| JsonPosition { line: position.line, character: position.character };
        let ranges = ranges
            .iter()
            .map(|range| JsonRange { start: position(range.start), end: position(range.end) })
            .collect();
        Self { ranges }
    }
}

/// A source file.
#[derive(Serialize)]
pub(crate) struct JsonSourceInfo<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    filename: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<JsonDefinition<'a>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    language: &'a str,
}

impl<'a> JsonSourceInfo<'a> {
    pub(crate) fn new(info: &'a pb::SourceInfo) -> Self {
        Self {
            filename: &info.filename,
            data: base64(&info.data),
            definition: info.definition.as_ref().map(JsonDefinition::new),
            language: &info.language,
        }
    }
}

#[derive(Serialize)]
struct JsonDefinition<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    def: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, JsonOpMetadata<'a>>,
    #[serde(rename = "Source", skip_serializing_if = "Option::is_none")]
    source: Option<JsonEmpty>,
}

/// The sources of the definition of a source: there are none.
#[derive(Serialize)]
struct JsonEmpty {}

impl<'a> JsonDefinition<'a> {
    fn new(definition: &'a pb::Definition) -> Self {
        let metadata = &definition.metadata;
        Self {
            def: definition.def.iter().map(|op| base64(op)).collect(),
            metadata: metadata
                .iter()
                .map(|(digest, meta)| (digest.as_str(), JsonOpMetadata::new(meta)))
                .collect(),
            source: definition.source.as_ref().map(|_| JsonEmpty {}),
        }
    }
}

/// Metadata of a vertex.
#[derive(Serialize)]
pub(crate) struct JsonOpMetadata<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    ignore_cache: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    description: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    caps: BTreeMap<&'a str, bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress_group: Option<JsonProgressGroup<'a>>,
}

#[derive(Serialize)]
struct JsonProgressGroup<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    weak: bool,
}

impl<'a> JsonOpMetadata<'a> {
    pub(crate) fn new(meta: &'a pb::OpMetadata) -> Self {
        let group = meta.progress_group.as_ref();
        Self {
            ignore_cache: meta.ignore_cache,
            description: meta.description.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            caps: meta.caps.iter().map(|(name, needed)| (name.as_str(), *needed)).collect(),
            progress_group: group.map(|group| JsonProgressGroup {
                id: &group.id,
                name: &group.name,
                weak: group.weak,
            }),
        }
    }
}
