//! Reading a definition: checks, order, typed vertices.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;
use kiln_oci::{Digest, Platform};
use kiln_proto::pb;
use kiln_proto::prost::Message;

use crate::error::Error;
use crate::metadata::OpMetadata;
use crate::op::Op;
use crate::source_map::{SourceLocation, SourceMap};
use crate::{caps, name};

/// Most vertices of a definition. Each takes memory as long as it is being built, about 16 KB of the daemon's: with this, 1 GiB.
pub const VERTICES_MAX: usize = 1 << 16;

/// A checked graph. Vertices that the result does not need are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    vertices: IndexMap<Digest, Arc<Vertex>>,
    result: Edge,
}

/// Output `index` of a vertex.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Edge {
    /// The vertex's digest.
    pub vertex: Digest,
    /// Which of its outputs; below its [`Op::output_count`].
    pub index: usize,
}

/// A vertex.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// Digest of [`Vertex::bytes`].
    pub digest: Digest,
    /// As encoded by whoever made it.
    pub bytes: Bytes,
    /// What it does. Its input numbers count [`Vertex::inputs`].
    pub op: Op,
    /// What it needs.
    pub inputs: Vec<Edge>,
    /// What it runs on or is for, as given (not normalised); none: not said.
    pub platform: Option<Arc<Platform>>,
    /// Filters on workers.
    pub worker_filters: Vec<String>,
    /// Outside the digest.
    pub metadata: OpMetadata,
    /// Where in which source file it comes from.
    pub locations: Vec<SourceLocation>,
    /// What progress calls it: its custom name, else a description of the operation.
    pub name: String,
}

/// What many vertices have the same of.
#[derive(Default)]
struct Shared {
    caps: Same<BTreeSet<String>>,
    platforms: Same<Platform>,
}

/// Values of which few are different.
struct Same<T>(Vec<Arc<T>>);

impl<T> Default for Same<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Same<T> {
    /// More different ones than this are not looked for.
    const KNOWN_MAX: usize = 32;

    /// The first one that is equal.
    fn get(&mut self, value: Arc<T>) -> Arc<T> {
        if let Some(known) = self.0.iter().find(|known| **known == value) {
            return known.clone();
        }
        if self.0.len() < Self::KNOWN_MAX {
            self.0.push(value.clone());
        }
        value
    }
}

/// A vertex that is decoded but not checked.
struct Raw {
    bytes: Bytes,
    op: pb::Op,
}

impl Graph {
    /// Reads and checks a definition, capabilities included. Bounded by the definition's own size, and by [`VERTICES_MAX`].
    pub fn load(definition: &pb::Definition) -> Result<Self, Error> {
        if definition.def.is_empty() {
            return Err(Error::EmptyDefinition);
        }
        if definition.def.len() > VERTICES_MAX {
            return Err(Error::TooManyVertices(definition.def.len()));
        }
        let mut raws: IndexMap<Digest, Raw> = IndexMap::with_capacity(definition.def.len());
        let mut last = None;
        for bytes in &definition.def {
            let op = pb::Op::decode(bytes.clone())?;
            for (input, edge) in op.inputs.iter().enumerate() {
                if edge.index < 0 {
                    return Err(Error::InvalidOutputIndex { input, index: edge.index });
                }
            }
            let digest = Digest::sha256_of(bytes);
            last = Some(digest.clone());
            raws.insert(digest, Raw { bytes: bytes.clone(), op });
        }
        if raws.len() < 2 {
            return Err(Error::TooFewVertices(raws.len()));
        }
        let last = last.ok_or(Error::EmptyDefinition)?;
        let terminal = &raws[&last].op;
        let result = terminal.inputs.first().ok_or(Error::NoResult)?;
        let (result_digest, result_index) = (result.digest.clone(), result.index);

        let locations = locations(definition.source.as_ref())?;
        let order = order(&raws, &result_digest)?;
        let mut shared = Shared::default();
        let mut vertices: IndexMap<Digest, Arc<Vertex>> = IndexMap::with_capacity(order.len());
        for position in order {
            let (digest, raw) = raws.get_index(position).expect("order() gives positions of raws");
            let mut metadata =
                definition.metadata.get(digest.as_str()).map(OpMetadata::from).unwrap_or_default();
            for cap in metadata.caps.iter() {
                caps::LLB.offers(cap)?;
            }
            metadata.caps = shared.caps.get(metadata.caps);
            let vertex = vertex(digest, raw, metadata, &locations, &vertices, &mut shared)?;
            vertices.insert(digest.clone(), Arc::new(vertex));
        }
        let result = edge(0, &result_digest, result_index, &vertices)?;
        Ok(Self { vertices, result })
    }

    /// Vertices, inputs before those that need them; the last one has the result. Whoever keeps one shares it with the graph.
    pub fn vertices(&self) -> impl DoubleEndedIterator<Item = &Arc<Vertex>> + ExactSizeIterator {
        self.vertices.values()
    }

    /// The vertex of that digest.
    pub fn vertex(&self, digest: &Digest) -> Option<&Vertex> {
        self.vertices.get(digest).map(Arc::as_ref)
    }

    /// What the graph is for.
    pub fn result(&self) -> &Edge {
        &self.result
    }

    /// A vertex and all it needs, inputs first.
    pub fn ancestors(&self, digest: &Digest) -> Vec<&Vertex> {
        let mut needed = vec![false; self.vertices.len()];
        if let Some(position) = self.vertices.get_index_of(digest) {
            needed[position] = true;
        }
        // Inputs stand before their users, so one pass from the end meets every user first.
        for position in (0..self.vertices.len()).rev() {
            if needed[position] {
                for input in &self.vertices[position].inputs {
                    if let Some(input) = self.vertices.get_index_of(&input.vertex) {
                        needed[input] = true;
                    }
                }
            }
        }
        self.vertices
            .values()
            .zip(needed)
            .filter(|(_, needed)| *needed)
            .map(|(vertex, _)| &**vertex)
            .collect()
    }
}

/// Positions of what the result needs, inputs first.
fn order(raws: &IndexMap<Digest, Raw>, result: &str) -> Result<Vec<usize>, Error> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let by_text: HashMap<&str, usize> =
        raws.keys().enumerate().map(|(position, digest)| (digest.as_str(), position)).collect();
    let find =
        |digest: &str| by_text.get(digest).copied().ok_or_else(|| Error::MissingInput(digest.to_string()));
    let mut marks = vec![Mark::New; raws.len()];
    let mut order = Vec::with_capacity(raws.len());
    // Position and how many of its inputs were looked at.
    let mut stack = vec![(find(result)?, 0)];
    marks[stack[0].0] = Mark::Open;
    while let Some((position, next)) = stack.last_mut() {
        match raws[*position].op.inputs.get(*next) {
            None => {
                marks[*position] = Mark::Done;
                order.push(*position);
                stack.pop();
            }
            Some(input) => {
                *next += 1;
                let input_position = find(&input.digest)?;
                match marks[input_position] {
                    Mark::Done => {}
                    Mark::Open => return Err(Error::Cycle(input.digest.clone())),
                    Mark::New => {
                        marks[input_position] = Mark::Open;
                        stack.push((input_position, 0));
                    }
                }
            }
        }
    }
    Ok(order)
}

fn vertex(
    digest: &Digest,
    raw: &Raw,
    metadata: OpMetadata,
    locations: &HashMap<&str, Vec<SourceLocation>>,
    earlier: &IndexMap<Digest, Arc<Vertex>>,
    shared: &mut Shared,
) -> Result<Vertex, Error> {
    let op = Op::from_pb(raw.op.clone())?.ok_or_else(|| Error::UnknownOp(digest.to_string()))?;
    let inputs = raw.op.inputs.iter().enumerate();
    let inputs = inputs.map(|(number, input)| edge(number, &input.digest, input.index, earlier));
    let inputs: Vec<Edge> = inputs.collect::<Result<_, _>>()?;
    let custom = metadata.described(crate::DESCRIPTION_CUSTOM_NAME).map(str::to_owned);
    let name = custom.unwrap_or_else(|| name::of_vertex(&op, &inputs, earlier));
    Ok(Vertex {
        digest: digest.clone(),
        bytes: raw.bytes.clone(),
        op,
        inputs,
        platform: raw
            .op
            .platform
            .as_ref()
            .map(|given| shared.platforms.get(Arc::new(platform_from_pb(given)))),
        worker_filters: raw.op.constraints.as_ref().map(|c| c.filter.clone()).unwrap_or_default(),
        metadata,
        locations: locations.get(digest.as_str()).cloned().unwrap_or_default(),
        name,
    })
}

/// The edge that input number `number` is.
fn edge(
    number: usize,
    digest: &str,
    index: i64,
    vertices: &IndexMap<Digest, Arc<Vertex>>,
) -> Result<Edge, Error> {
    let missing = || Error::MissingInput(digest.to_string());
    let parsed = Digest::parse(digest).map_err(|_| missing())?;
    let vertex = vertices.get(&parsed).ok_or_else(missing)?;
    match usize::try_from(index) {
        Ok(position) if position < vertex.op.output_count() => {
            Ok(Edge { vertex: vertex.digest.clone(), index: position })
        }
        _ => Err(Error::InvalidOutputIndex { input: number, index }),
    }
}

fn locations(source: Option<&pb::Source>) -> Result<HashMap<&str, Vec<SourceLocation>>, Error> {
    let Some(source) = source else { return Ok(HashMap::new()) };
    let maps: Vec<Arc<SourceMap>> = source.infos.iter().map(|info| Arc::new(info.into())).collect();
    let mut out: HashMap<&str, Vec<SourceLocation>> = HashMap::new();
    for (digest, list) in &source.locations {
        for location in &list.locations {
            let map = usize::try_from(location.source_index).ok().and_then(|index| maps.get(index));
            let map = map.ok_or(Error::SourceIndex(location.source_index))?;
            let location = SourceLocation { source: map.clone(), ranges: location.ranges.clone() };
            out.entry(digest).or_default().push(location);
        }
    }
    Ok(out)
}

fn platform_from_pb(platform: &pb::Platform) -> Platform {
    Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
        variant: platform.variant.clone(),
    }
}
