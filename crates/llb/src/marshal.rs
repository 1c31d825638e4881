//! From steps to a definition.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use kiln_oci::{Digest, Platform};
use kiln_proto::pb;
use kiln_proto::prost::Message;

use crate::constraints::MarshalOptions;
use crate::error::Error;
use crate::metadata::OpMetadata;
use crate::node::{Node, Output, OutputKind, WireInput};
use crate::op::Op;
use crate::source_map::{SourceLocation, SourceMap};
use crate::{attrs, caps};

/// Writes down what `result` needs. None: scratch, a definition without vertices.
pub(crate) fn marshal(result: Option<&Output>, options: &MarshalOptions) -> Result<pb::Definition, Error> {
    let Some(result) = result.map(Output::resolve).transpose()?.flatten() else {
        return Ok(pb::Definition::default());
    };
    let mut writer = Writer::new(options);
    writer.visit(&result)?;
    let input = writer.input_of(&result);
    writer.finish(input)
}

struct Writer<'a> {
    options: &'a MarshalOptions,
    vertices: Vec<Bytes>,
    known: HashSet<Digest>,
    metadata: BTreeMap<String, OpMetadata>,
    sources: Sources,
    done: HashMap<*const Node, Digest>,
}

/// What the walk still has to do.
enum Task {
    Enter(Output),
    Leave(Arc<Node>),
}

impl<'a> Writer<'a> {
    fn new(options: &'a MarshalOptions) -> Self {
        Self {
            options,
            vertices: Vec::new(),
            known: HashSet::new(),
            metadata: BTreeMap::new(),
            sources: Sources::default(),
            done: HashMap::new(),
        }
    }

    /// Writes the vertices that `result` (resolved) needs, inputs first. A loop, not recursion: graphs may be long chains.
    fn visit(&mut self, result: &Output) -> Result<(), Error> {
        let mut entered: HashSet<*const Node> = HashSet::new();
        let mut tasks = vec![Task::Enter(result.clone())];
        while let Some(task) = tasks.pop() {
            match task {
                Task::Leave(node) => self.node(&node)?,
                Task::Enter(output) => match output.resolve()?.map(|output| output.0) {
                    None => {}
                    Some(OutputKind::Foreign { graph, edge }) => self.foreign(&graph, &edge),
                    Some(OutputKind::Node { node, .. }) => {
                        let id = Arc::as_ptr(&node);
                        if self.done.contains_key(&id) {
                            continue;
                        }
                        // Whatever is entered is left before its siblings are looked at: it can only wait for itself.
                        if !entered.insert(id) {
                            return Err(Error::Cycle(crate::name::of_op(&node.op)));
                        }
                        let deps: Vec<Output> = node.deps.clone();
                        tasks.push(Task::Leave(node));
                        tasks.extend(deps.into_iter().rev().map(Task::Enter));
                    }
                    Some(OutputKind::Late(_)) => unreachable!("resolve() leaves no late output"),
                },
            }
        }
        Ok(())
    }

    /// The digest and index of an output (resolved) whose vertex is written.
    fn input_of(&self, output: &Output) -> WireInput {
        match &output.0 {
            OutputKind::Node { node, index } => {
                WireInput { digest: self.done[&Arc::as_ptr(node)].clone(), index: *index }
            }
            OutputKind::Foreign { edge, .. } => WireInput { digest: edge.vertex.clone(), index: edge.index },
            OutputKind::Late(_) => unreachable!("resolve() leaves no late output"),
        }
    }

    fn node(&mut self, node: &Arc<Node>) -> Result<(), Error> {
        let mut op = node.op.clone();
        let mut inputs: Vec<WireInput> = Vec::new();
        let mut map = Vec::with_capacity(node.deps.len());
        // A merge may name one input twice; other steps name an input once.
        let unique = !matches!(op, Op::Merge(_) | Op::Diff(_) | Op::Passthrough(_));
        for dep in &node.deps {
            map.push(dep.resolve()?.map(|dep| {
                let input = self.input_of(&dep);
                match inputs.iter().position(|known| unique && *known == input) {
                    Some(index) => index,
                    None => {
                        inputs.push(input);
                        inputs.len() - 1
                    }
                }
            }));
        }
        op.map_inputs(&map)?;

        let constraints = &node.constraints;
        let mut metadata = self.options.metadata.clone();
        metadata.merge(&constraints.metadata);
        if let Op::Source(source) = &mut op
            && source.identifier.starts_with(attrs::SCHEME_LOCAL)
            && !source.attrs.contains_key(attrs::LOCAL_SESSION_ID)
        {
            let id = constraints.local_unique_id.as_ref().unwrap_or(&self.options.local_unique_id);
            source.attrs.insert(attrs::LOCAL_UNIQUE_ID.into(), id.clone());
            Arc::make_mut(&mut metadata.caps).insert(caps::SOURCE_LOCAL_UNIQUE.to_string());
        }
        let platform = constraints.platform.as_ref().unwrap_or(&self.options.platform);
        let filters = self.options.worker_filters.iter().chain(&constraints.worker_filters).cloned();
        let message = pb::Op {
            platform: op.is_platform_specific().then(|| platform_to_pb(platform)),
            constraints: Some(pb::WorkerConstraints { filter: filters.collect() }),
            op: Some(op.to_pb(inputs.len())),
            inputs: inputs
                .into_iter()
                .map(|input| pb::Input { digest: input.digest.to_string(), index: input.index as i64 })
                .collect(),
        };
        let digest = self.write(encode(message));
        self.metadata.entry(digest.to_string()).or_default().merge(&metadata);
        self.sources.add(&digest, &constraints.locations);
        self.done.insert(Arc::as_ptr(node), digest);
        Ok(())
    }

    /// Takes over what an output of another graph needs, byte by byte.
    fn foreign(&mut self, graph: &crate::Graph, edge: &crate::Edge) {
        for vertex in graph.ancestors(&edge.vertex) {
            if self.known.contains(&vertex.digest) {
                continue;
            }
            self.write(vertex.bytes.clone());
            self.metadata.entry(vertex.digest.to_string()).or_default().merge(&vertex.metadata);
            self.sources.add(&vertex.digest, &vertex.locations);
        }
    }

    fn write(&mut self, bytes: Bytes) -> Digest {
        let digest = Digest::sha256_of(&bytes);
        if self.known.insert(digest.clone()) {
            self.vertices.push(bytes);
        }
        digest
    }

    fn finish(mut self, input: WireInput) -> Result<pb::Definition, Error> {
        let terminal = pb::Op {
            inputs: vec![pb::Input { digest: input.digest.to_string(), index: input.index as i64 }],
            ..Default::default()
        };
        let mut own = OpMetadata::default();
        let needed = [
            (true, caps::CONSTRAINTS),
            (true, caps::PLATFORM),
            (self.metadata.values().any(|m| m.ignore_cache), caps::META_IGNORECACHE),
            (self.metadata.values().any(|m| !m.description.is_empty()), caps::META_DESCRIPTION),
            (self.metadata.values().any(|m| m.export_cache.is_some()), caps::META_EXPORTCACHE),
        ];
        own.caps =
            Arc::new(needed.into_iter().filter(|(need, _)| *need).map(|(_, cap)| cap.to_string()).collect());
        let digest = self.write(encode(terminal));
        self.metadata.insert(digest.to_string(), own);
        Ok(pb::Definition {
            def: self.vertices,
            metadata: self
                .metadata
                .into_iter()
                .map(|(digest, metadata)| (digest, (&metadata).into()))
                .collect(),
            source: Some(self.sources.finish()),
        })
    }
}

/// Source files, each once, and where in them vertices come from.
#[derive(Default)]
struct Sources {
    maps: Vec<Arc<SourceMap>>,
    locations: BTreeMap<String, pb::Locations>,
}

impl Sources {
    fn add(&mut self, digest: &Digest, locations: &[SourceLocation]) {
        for location in locations {
            let same = |known: &Arc<SourceMap>| {
                Arc::ptr_eq(known, &location.source) || known.is_same_file(&location.source)
            };
            let index = self.maps.iter().position(same).unwrap_or_else(|| {
                self.maps.push(location.source.clone());
                self.maps.len() - 1
            });
            let entry = self.locations.entry(digest.to_string()).or_default();
            let location = pb::Location { source_index: index as i32, ranges: location.ranges.clone() };
            // Equal steps on different lines are one vertex with several places; one step reached twice is not.
            if !entry.locations.contains(&location) {
                entry.locations.push(location);
            }
        }
    }

    fn finish(self) -> pb::Source {
        pb::Source {
            locations: self.locations,
            infos: self.maps.iter().map(|map| map.as_ref().into()).collect(),
        }
    }
}

/// The bytes that digests are computed over. BuildKit's encoder writes the members of a `oneof` after all other fields, and equal
/// steps shall have equal digests whoever writes them down; two encodings in a row are the encoding of both.
pub(crate) fn encode(mut op: pb::Op) -> Bytes {
    let payload = op.op.take();
    let mut bytes = op.encode_to_vec();
    bytes.extend(pb::Op { op: payload, ..Default::default() }.encode_to_vec());
    bytes.into()
}

pub(crate) fn platform_to_pb(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}
