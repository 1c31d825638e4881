//! A definition that was loaded, for whoever asks for it again.

use bytes::Bytes;
use kiln_proto::pb;
use kiln_proto::prost::Message;

/// A definition as it was sent. Somebody may ask for it again, and mostly nobody does: the loaded graph has all that a build needs.
pub struct Sent {
    /// The vertices, whose bytes the loaded graph has as well.
    vertices: Vec<Bytes>,
    /// Its metadata and its sources, as messages with nothing else: a fraction of what they take when they are read.
    metadata: Vec<u8>,
    source: Vec<u8>,
    head: Option<String>,
}

impl Sent {
    pub(super) fn new(mut definition: pb::Definition) -> Sent {
        let head = head(&definition);
        let source = pb::Definition { source: definition.source.take(), ..Default::default() };
        let vertices = std::mem::take(&mut definition.def);
        Sent { vertices, metadata: definition.encode_to_vec(), source: source.encode_to_vec(), head }
    }

    /// The vertex that the graph is for.
    pub fn head(&self) -> Option<&str> {
        self.head.as_deref()
    }

    /// The definition itself.
    pub fn read(&self) -> pb::Definition {
        pb::Definition { metadata: decode(&self.metadata).metadata, ..self.read_without_metadata() }
    }

    /// Its vertices and where they come from.
    pub fn read_without_metadata(&self) -> pb::Definition {
        pb::Definition { def: self.vertices.clone(), ..decode(&self.source) }
    }
}

fn decode(part: &[u8]) -> pb::Definition {
    pb::Definition::decode(part).expect("was encoded from one")
}

/// The vertex that a graph is for.
pub(super) fn head(definition: &pb::Definition) -> Option<String> {
    let last = pb::Op::decode(definition.def.last()?.clone()).ok()?;
    Some(last.inputs.into_iter().next()?.digest)
}
