//! Changing sources of a graph that was read, as source policies do.

use std::collections::{BTreeMap, HashMap};

use kiln_oci::Digest;
use kiln_proto::pb;
use kiln_proto::prost::Message;

use crate::error::Error;
use crate::graph::{Edge, Graph};
use crate::marshal::encode;
use crate::op::{Op, SourceOp};
use crate::source_map::SourceLocation;

impl Graph {
    /// The same graph with some sources replaced, by the digest of their vertex. Digests of what needs them change along.
    pub fn replace_sources(&self, sources: &HashMap<Digest, SourceOp>) -> Result<Graph, Error> {
        self.rewrite(|digest, op| {
            if let Some(source) = sources.get(digest) {
                op.op = Some(Op::Source(source.clone()).to_pb(op.inputs.len()));
            }
            Ok(())
        })
    }

    /// The same graph with `change` made to every vertex, called with its old digest, inputs first. Inputs are renamed afterwards;
    /// `change` leaves them alone.
    pub fn rewrite(
        &self,
        mut change: impl FnMut(&Digest, &mut pb::Op) -> Result<(), Error>,
    ) -> Result<Graph, Error> {
        let mut renamed: HashMap<Digest, Digest> = HashMap::new();
        let mut definition = pb::Definition::default();
        let mut source = pb::Source::default();
        for vertex in self.vertices() {
            let mut op = pb::Op::decode(vertex.bytes.clone())?;
            let before = op.clone();
            change(&vertex.digest, &mut op)?;
            for input in &mut op.inputs {
                if let Some(new) = Digest::parse(&input.digest).ok().and_then(|digest| renamed.get(&digest)) {
                    input.digest = new.to_string();
                }
            }
            // What did not change keeps its bytes, whoever encoded them.
            let bytes = if op == before { vertex.bytes.clone() } else { encode(op) };
            let digest = Digest::sha256_of(&bytes);
            definition.metadata.insert(digest.to_string(), (&vertex.metadata).into());
            add_locations(&mut source, &digest, &vertex.locations);
            definition.def.push(bytes);
            renamed.insert(vertex.digest.clone(), digest);
        }
        let result = Edge { vertex: renamed[&self.result().vertex].clone(), index: self.result().index };
        let input = pb::Input { digest: result.vertex.to_string(), index: result.index as i64 };
        definition.def.push(encode(pb::Op { inputs: vec![input], ..Default::default() }));
        definition.source = Some(source);
        Graph::load(&definition)
    }

    /// The graph as a definition again.
    pub fn to_definition(&self) -> pb::Definition {
        let mut source = pb::Source::default();
        let mut metadata = BTreeMap::new();
        let mut def = Vec::with_capacity(self.vertices().len() + 1);
        for vertex in self.vertices() {
            def.push(vertex.bytes.clone());
            metadata.insert(vertex.digest.to_string(), (&vertex.metadata).into());
            add_locations(&mut source, &vertex.digest, &vertex.locations);
        }
        let result = self.result();
        let input = pb::Input { digest: result.vertex.to_string(), index: result.index as i64 };
        def.push(encode(pb::Op { inputs: vec![input], ..Default::default() }));
        pb::Definition { def, metadata, source: Some(source) }
    }
}

fn add_locations(source: &mut pb::Source, digest: &Digest, locations: &[SourceLocation]) {
    for location in locations {
        let info: pb::SourceInfo = location.source.as_ref().into();
        let index = source.infos.iter().position(|known| *known == info).unwrap_or_else(|| {
            source.infos.push(info);
            source.infos.len() - 1
        });
        let entry = source.locations.entry(digest.to_string()).or_default();
        entry.locations.push(pb::Location { source_index: index as i32, ranges: location.ranges.clone() });
    }
}
