//! The steps of a build as the statement lists them: inputs before what uses them.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
    pub source: Option<Value>,
}

/// One step. It becomes JSON as it is written: thousands of them as trees of JSON take more memory than all else of a build.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    number: usize,
    /// Without its inputs.
    op: pb::Op,
    /// Numbers of steps, and which of their outputs.
    inputs: Vec<(usize, i64)>,
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut step = serializer.serialize_map(None)?;
        step.serialize_entry("id", &format!("step{}", self.number))?;
        if !self.inputs.is_empty() {
            let inputs: Vec<String> =
                self.inputs.iter().map(|(number, index)| format!("step{number}:{index}")).collect();
            step.serialize_entry("inputs", &inputs)?;
        }
        step.serialize_entry("op", &to_json("pb.Op", &self.op).unwrap_or_default())?;
        step.end()
    }
}

impl BuildSteps {
    pub(super) fn digest_mapping(&self) -> BTreeMap<&str, String> {
        self.places.iter().map(|(digest, place)| (digest.as_str(), format!("step{place}"))).collect()
    }
}

/// Lists the steps of a definition.
pub fn build_steps(definition: &pb::Definition) -> Result<BuildSteps, ExportError> {
    let mut steps = list(definition)?;
    let Some(source) = definition.source.as_ref().filter(|source| !source.infos.is_empty()) else {
        return Ok(steps);
    };
    let infos = source
        .infos
        .iter()
        .map(|info| {
            let own = info.definition.as_ref().map(list).transpose()?.unwrap_or_default();
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
    let locations: BTreeMap<String, Value> = source
        .locations
        .iter()
        .filter_map(|(digest, locations)| {
            let place = steps.places.get(&Digest::parse(digest).ok()?)?;
            Some((format!("step{place}"), to_json("pb.Locations", locations)?))
        })
        .collect();
    let mut told = Map::new();
    if !locations.is_empty() {
        told.insert("locations".to_owned(), json!(locations));
    }
    told.insert("infos".to_owned(), infos.into());
    steps.source = Some(told.into());
    Ok(steps)
}

fn list(definition: &pb::Definition) -> Result<BuildSteps, ExportError> {
    let fail = |text: String| ExportError::Attestation(text);
    let mut ops: HashMap<String, pb::Op> = HashMap::new();
    let mut last = None;
    for bytes in &definition.def {
        let mut op = pb::Op::decode(bytes.clone())
            .map_err(|error| fail(format!("failed to parse llb proto op: {error}")))?;
        if let Some(pb::op::Op::Source(source)) = &mut op.op {
            source.attrs.retain(|key, _| !SESSION_ATTRS.contains(&key.as_str()));
            source.identifier = redact_credentials(&source.identifier);
            source.attrs.values_mut().for_each(|value| *value = redact_credentials(value));
        }
        let digest = Digest::sha256_of(bytes).to_string();
        ops.insert(digest.clone(), op);
        last = Some(digest);
    }
    let Some(last) = last else { return Ok(BuildSteps::default()) };
    if ops[&last].op.is_some() || ops[&last].inputs.len() != 1 {
        return Err(fail("invalid last vertex".to_owned()));
    }
    let order = inputs_first(&ops, &last)?;
    let numbers: HashMap<&str, usize> =
        order.iter().enumerate().map(|(number, digest)| (digest.as_str(), number)).collect();
    let steps = order
        .iter()
        .enumerate()
        .map(|(number, digest)| {
            let mut op = ops[digest].clone();
            let inputs = std::mem::take(&mut op.inputs);
            let inputs = inputs.iter().map(|input| (numbers[input.digest.as_str()], input.index)).collect();
            Step { number, op, inputs }
        })
        .collect();
    let places = order
        .iter()
        .enumerate()
        .filter_map(|(number, digest)| Some((Digest::parse(digest).ok()?, number)))
        .collect();
    Ok(BuildSteps { steps, places, source: None })
}

/// Depth first, with a stack of its own: definitions are as deep as they are long.
fn inputs_first(ops: &HashMap<String, pb::Op>, last: &str) -> Result<Vec<String>, ExportError> {
    let mut order = Vec::with_capacity(ops.len());
    // How many inputs of each op have been walked.
    let mut walked: HashMap<&str, usize> = HashMap::new();
    let mut stack = vec![last];
    while let Some(digest) = stack.last().copied() {
        let op = ops
            .get(digest)
            .ok_or_else(|| ExportError::Attestation(format!("failed to find input {digest}")))?;
        let next = walked.entry(digest).or_insert(0);
        match op.inputs.get(*next) {
            Some(input) => {
                *next += 1;
                if !walked.contains_key(input.digest.as_str()) {
                    stack.push(&input.digest);
                }
            }
            None => {
                stack.pop();
                order.push(digest.to_owned());
            }
        }
    }
    Ok(order)
}
