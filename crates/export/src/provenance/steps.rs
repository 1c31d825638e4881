//! The steps of a build as the statement lists them: inputs before what uses them.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kiln_oci::Digest;
use kiln_proto::pb;
use kiln_proto::prost::Message;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use super::op_json::to_json;
use super::request::redact_credentials;
use crate::error::ExportError;

/// Attributes of sources which only name a client's session.
const SESSION_ATTRS: [&str; 2] = ["local.session", "local.unique"];

/// Steps with their numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BuildSteps {
    /// The steps by their numbers.
    pub steps: Vec<Step>,
    /// The number of each op of the definition.
    pub places: BTreeMap<Digest, usize>,
    /// The Dockerfile, and where in it each step comes from.
    pub source: Option<StepSource>,
}

/// One step. It is read, and becomes JSON, as it is written: thousands of them as trees take more memory than all else of a build.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    number: usize,
    /// As the definition has it.
    bytes: Bytes,
    inputs: Inputs,
}

/// Where steps come from.
#[derive(Clone, Debug, PartialEq)]
pub struct StepSource {
    infos: Vec<Value>,
    /// By the names of steps.
    locations: Vec<(usize, pb::Locations)>,
}

/// The steps of the ops of a definition.
#[derive(Clone, Copy, Debug)]
pub(super) struct DigestMapping<'a>(&'a BTreeMap<Digest, usize>);

fn step_name(number: usize) -> String {
    format!("step{number}")
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut op = read(&self.bytes).map_err(serde::ser::Error::custom)?;
        op.inputs.clear();
        if let Some(pb::op::Op::Source(source)) = &mut op.op {
            source.attrs.retain(|key, _| !SESSION_ATTRS.contains(&key.as_str()));
            source.identifier = redact_credentials(&source.identifier);
            source.attrs.values_mut().for_each(|value| *value = redact_credentials(value));
        }
        let mut step = serializer.serialize_map(None)?;
        step.serialize_entry("id", &step_name(self.number))?;
        if !self.inputs.is_empty() {
            let inputs: Vec<String> =
                self.inputs.iter().map(|(number, index)| format!("step{number}:{index}")).collect();
            step.serialize_entry("inputs", &inputs)?;
        }
        step.serialize_entry("op", &to_json("pb.Op", &op).unwrap_or_default())?;
        step.end()
    }
}

impl Serialize for StepSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Locations<'a>(&'a [(usize, pb::Locations)]);
        impl Serialize for Locations<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let told = |(number, locations): &(usize, pb::Locations)| {
                    (step_name(*number), to_json("pb.Locations", locations).unwrap_or_default())
                };
                serializer.collect_map(self.0.iter().map(told))
            }
        }
        let mut source = serializer.serialize_map(None)?;
        source.serialize_entry("infos", &self.infos)?;
        if !self.locations.is_empty() {
            source.serialize_entry("locations", &Locations(&self.locations))?;
        }
        source.end()
    }
}

impl Serialize for DigestMapping<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(digest, place)| (digest.as_str(), step_name(*place))))
    }
}

impl DigestMapping<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl BuildSteps {
    pub(super) fn digest_mapping(&self) -> DigestMapping<'_> {
        DigestMapping(&self.places)
    }
}

/// Lists the steps of a definition. Of its metadata nothing is told.
pub fn build_steps(definition: pb::Definition) -> Result<BuildSteps, ExportError> {
    let mut steps = list(&definition.def)?;
    let Some(source) = definition.source.filter(|source| !source.infos.is_empty()) else {
        return Ok(steps);
    };
    let infos = source
        .infos
        .iter()
        .map(|info| {
            let own = info.definition.as_ref().map(|own| list(&own.def)).transpose()?.unwrap_or_default();
            let mut entry = Map::new();
            let mut put = |key: &str, value: Value, empty: bool| {
                if !empty {
                    entry.insert(key.to_owned(), value);
                }
            };
            put("filename", info.filename.clone().into(), info.filename.is_empty());
            put("language", info.language.clone().into(), info.language.is_empty());
            put("data", STANDARD.encode(&info.data).into(), info.data.is_empty());
            put("llbDefinition", json!(own.steps), own.steps.is_empty());
            put("digestMapping", json!(own.digest_mapping()), own.places.is_empty());
            Ok(Value::from(entry))
        })
        .collect::<Result<Vec<_>, ExportError>>()?;
    let place = |digest: &str| steps.places.get(&Digest::parse(digest).ok()?).copied();
    let mut locations: Vec<(usize, pb::Locations)> = source
        .locations
        .into_iter()
        .filter_map(|(digest, locations)| Some((place(&digest)?, locations)))
        .collect();
    locations.sort_by_cached_key(|(number, _)| step_name(*number));
    steps.source = Some(StepSource { infos, locations });
    Ok(steps)
}

fn read(bytes: &Bytes) -> Result<pb::Op, ExportError> {
    pb::Op::decode(bytes.clone())
        .map_err(|error| ExportError::Attestation(format!("failed to parse llb proto op: {error}")))
}

fn list(vertices: &[Bytes]) -> Result<BuildSteps, ExportError> {
    let Some(last) = vertices.last().map(read).transpose()? else { return Ok(BuildSteps::default()) };
    if last.op.is_some() || last.inputs.len() != 1 {
        return Err(ExportError::Attestation("invalid last vertex".to_owned()));
    }
    let digests: Vec<Digest> = vertices.iter().map(Digest::sha256_of).collect();
    let positions: HashMap<&str, usize> =
        digests.iter().enumerate().map(|(position, digest)| (digest.as_str(), position)).collect();
    let inputs_of = |position: usize| {
        let input = |input: &pb::Input| match positions.get(input.digest.as_str()) {
            Some(position) => Ok((*position, input.index)),
            None => Err(ExportError::Attestation(format!("failed to find input {}", input.digest))),
        };
        read(&vertices[position])?.inputs.iter().map(input).collect()
    };
    let order = inputs_first(vertices.len() - 1, inputs_of)?;
    let mut numbers = vec![0; vertices.len()];
    order.iter().enumerate().for_each(|(number, (position, _))| numbers[*position] = number);
    let places = order.iter().enumerate().map(|(number, (at, _))| (digests[*at].clone(), number)).collect();
    let step = |(number, (position, mut inputs)): (usize, (usize, Inputs))| {
        inputs.iter_mut().for_each(|(input, _)| *input = numbers[*input]);
        Step { number, bytes: vertices[position].clone(), inputs }
    };
    let steps = order.into_iter().enumerate().map(step).collect();
    Ok(BuildSteps { steps, places, source: None })
}

/// Positions of vertices, or numbers of steps, and which of their outputs.
type Inputs = Vec<(usize, i64)>;

/// What `top` needs and itself, each with its inputs. Depth first, with a stack of its own: definitions are as deep as they are long.
fn inputs_first(
    top: usize,
    inputs_of: impl Fn(usize) -> Result<Inputs, ExportError>,
) -> Result<Vec<(usize, Inputs)>, ExportError> {
    let mut order = Vec::new();
    let mut met = HashSet::from([top]);
    // With how many of their inputs were walked.
    let mut stack = vec![(top, inputs_of(top)?, 0)];
    while let Some((_, inputs, next)) = stack.last_mut() {
        match inputs.get(*next) {
            Some((input, _)) => {
                *next += 1;
                let input = *input;
                if met.insert(input) {
                    stack.push((input, inputs_of(input)?, 0));
                }
            }
            None => {
                let (position, inputs, _) = stack.pop().expect("was looked at");
                order.push((position, inputs));
            }
        }
    }
    Ok(order)
}
