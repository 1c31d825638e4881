//! Where in which source file a vertex comes from.

use std::sync::Arc;

use bytes::Bytes;
use kiln_proto::pb;

/// A source file, such as a Dockerfile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceMap {
    /// Its name as shown to people.
    pub filename: String,
    /// Its language by Linguist's name, such as `Dockerfile`.
    pub language: String,
    /// Its contents.
    pub data: Bytes,
    /// The graph that the file itself came from.
    pub definition: Option<pb::Definition>,
}

impl SourceMap {
    /// Whether both are the same file, by what it holds and the vertex it came from. What else is said about that vertex does not count.
    pub fn is_same_file(&self, other: &SourceMap) -> bool {
        let origin = |map: &'_ SourceMap| map.definition.as_ref().map(|from| from.def.last().cloned());
        let known = origin(self).zip(origin(other));
        self.filename == other.filename
            && self.language == other.language
            && self.data == other.data
            && known.is_none_or(|(one, other)| one == other)
    }
}

/// Lines of a source file that a vertex comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLocation {
    /// The file.
    pub source: Arc<SourceMap>,
    /// Ranges in it; lines count from 1.
    pub ranges: Vec<pb::Range>,
}

impl SourceLocation {
    /// Whole lines, first and last included.
    pub fn lines(source: &Arc<SourceMap>, lines: impl IntoIterator<Item = (i32, i32)>) -> Self {
        let position = |line| Some(pb::Position { line, character: 0 });
        let ranges = lines
            .into_iter()
            .map(|(first, last)| pb::Range { start: position(first), end: position(last) })
            .collect();
        Self { source: source.clone(), ranges }
    }
}

impl From<&SourceMap> for pb::SourceInfo {
    fn from(source: &SourceMap) -> Self {
        Self {
            filename: source.filename.clone(),
            data: source.data.clone(),
            definition: source.definition.clone(),
            language: source.language.clone(),
        }
    }
}

impl From<&pb::SourceInfo> for SourceMap {
    fn from(info: &pb::SourceInfo) -> Self {
        Self {
            filename: info.filename.clone(),
            language: info.language.clone(),
            data: info.data.clone(),
            definition: info.definition.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_whoever_asked_for_it() {
        let from = |vertex: &'static str, constraint: &str| SourceMap {
            filename: "Dockerfile".to_owned(),
            definition: Some(pb::Definition {
                def: vec![vertex.into()],
                metadata: [(constraint.to_owned(), pb::OpMetadata::default())].into(),
                ..Default::default()
            }),
            ..SourceMap::default()
        };
        assert!(from("a", "1").is_same_file(&from("a", "2")));
        assert!(!from("a", "1").is_same_file(&from("b", "1")));
        assert!(from("a", "1").is_same_file(&SourceMap { definition: None, ..from("a", "1") }));
        assert!(!from("a", "1").is_same_file(&SourceMap { data: "x".into(), ..from("a", "1") }));
    }
}
