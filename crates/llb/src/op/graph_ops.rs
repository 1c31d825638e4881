//! The small operations: source, build, merge, diff, passthrough.

use std::collections::BTreeMap;

use kiln_proto::pb;

use super::{input_from_wire, required_input, to_wire};
use crate::{Error, attrs};

/// The file that has the definition of a build operation unless its attributes say otherwise; also the input's name.
pub const LLB_DEFINITION_FILE: &str = "buildkit.llb.definition";

/// Brings in files from outside: `scheme://ref` and what the scheme's attributes say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceOp {
    /// `scheme://ref`.
    pub identifier: String,
    /// See [`crate::attrs`].
    pub attrs: BTreeMap<String, String>,
}

impl SourceOp {
    /// A source without attributes.
    pub fn new(identifier: impl Into<String>) -> Self {
        Self { identifier: identifier.into(), attrs: BTreeMap::new() }
    }

    /// Scheme (without `://`) and the rest.
    pub fn scheme(&self) -> Option<(&str, &str)> {
        self.identifier.split_once("://")
    }

    pub(crate) fn is_platform_specific(&self) -> bool {
        self.identifier.starts_with(attrs::SCHEME_IMAGE)
            || self.identifier.starts_with(attrs::SCHEME_OCI_LAYOUT)
    }

    /// The protobuf form.
    pub fn to_pb(&self) -> pb::SourceOp {
        pb::SourceOp { identifier: self.identifier.clone(), attrs: self.attrs.clone() }
    }
}

impl From<pb::SourceOp> for SourceOp {
    fn from(op: pb::SourceOp) -> Self {
        Self { identifier: op.identifier, attrs: op.attrs }
    }
}

/// Solves a graph that its inputs hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BuildOp {
    /// Input with the frontend; none: the inputs hold LLB.
    pub builder: Option<usize>,
    /// Inputs by name.
    pub inputs: BTreeMap<String, usize>,
    /// The graph itself instead of a file with it.
    pub definition: Option<pb::Definition>,
    /// Attributes, such as the file's name.
    pub attrs: BTreeMap<String, String>,
}

impl BuildOp {
    pub(super) fn from_pb(op: pb::BuildOp, inputs: usize) -> Result<Self, Error> {
        Ok(Self {
            builder: input_from_wire(op.builder, inputs)?,
            inputs: op
                .inputs
                .into_iter()
                .map(|(name, input)| Ok((name, required_input(input.input, inputs)?)))
                .collect::<Result<_, Error>>()?,
            definition: op.def,
            attrs: op.attrs,
        })
    }

    pub(super) fn to_pb(&self) -> pb::BuildOp {
        pb::BuildOp {
            builder: to_wire(self.builder),
            inputs: self
                .inputs
                .iter()
                .map(|(name, input)| (name.clone(), pb::BuildInput { input: *input as i64 }))
                .collect(),
            def: self.definition.clone(),
            attrs: self.attrs.clone(),
        }
    }
}

/// Puts inputs on top of each other, the first one lowest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MergeOp {
    /// Input numbers; scratch ones are left out.
    pub inputs: Vec<usize>,
}

impl MergeOp {
    pub(super) fn from_pb(op: pb::MergeOp, inputs: usize) -> Result<Self, Error> {
        let mut merged = Vec::with_capacity(op.inputs.len());
        for input in op.inputs {
            merged.extend(input_from_wire(input.input, inputs)?);
        }
        Ok(Self { inputs: merged })
    }

    pub(super) fn to_pb(&self) -> pb::MergeOp {
        pb::MergeOp {
            inputs: self.inputs.iter().map(|input| pb::MergeInput { input: *input as i64 }).collect(),
        }
    }
}

/// What `upper` has over `lower`; none: scratch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiffOp {
    /// Input number of the lower side.
    pub lower: Option<usize>,
    /// Input number of the upper side.
    pub upper: Option<usize>,
}

impl DiffOp {
    pub(super) fn from_pb(op: pb::DiffOp, inputs: usize) -> Result<Self, Error> {
        let (Some(lower), Some(upper)) = (op.lower, op.upper) else {
            return Err(Error::Invalid("diff op with nil lower or upper input".into()));
        };
        Ok(Self {
            lower: input_from_wire(lower.input, inputs)?,
            upper: input_from_wire(upper.input, inputs)?,
        })
    }

    pub(super) fn to_pb(&self) -> pb::DiffOp {
        pb::DiffOp {
            lower: Some(pb::LowerDiffInput { input: to_wire(self.lower) }),
            upper: Some(pb::UpperDiffInput { input: to_wire(self.upper) }),
        }
    }
}

/// Gives some inputs as outputs and depends on all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassthroughOp {
    /// Tells one from another.
    pub id: String,
    /// For each output, the input it is.
    pub outputs: Vec<usize>,
}

impl PassthroughOp {
    pub(super) fn from_pb(op: pb::PassthroughOp, inputs: usize) -> Result<Self, Error> {
        if op.id.is_empty() {
            return Err(Error::Invalid("passthrough op with no id".into()));
        }
        if op.outputs.is_empty() {
            return Err(Error::Invalid("passthrough op with no outputs".into()));
        }
        let outputs = op.outputs.into_iter().map(|input| {
            required_input(input, inputs)
                .map_err(|_| Error::Invalid(format!("passthrough output input index {input}")))
        });
        Ok(Self { id: op.id, outputs: outputs.collect::<Result<_, _>>()? })
    }

    pub(super) fn to_pb(&self) -> pb::PassthroughOp {
        pb::PassthroughOp {
            id: self.id.clone(),
            outputs: self.outputs.iter().map(|input| *input as i64).collect(),
        }
    }
}
