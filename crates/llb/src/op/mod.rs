//! Operations as Rust types, to and from their protobuf form. Input numbers count the inputs of the vertex that has the operation.

mod exec;
mod file;
mod graph_ops;

pub use exec::{
    CacheMount, CacheSharing, ContentCache, Device, ExecOp, ExtraHost, Meta, Mount, MountKind, NetMode,
    ProxyEnv, ROOT_MOUNT, SecretEnv, SecretMount, SecurityMode, SshMount, Ulimit,
};
pub use file::{
    ActionInput, ChownOpt, CopyAction, FileAction, FileActionKind, FileOp, MkdirAction, MkfileAction,
    RmAction, SymlinkAction, UserOpt,
};
pub use graph_ops::{BuildOp, DiffOp, LLB_DEFINITION_FILE, MergeOp, PassthroughOp, SourceOp};

use kiln_proto::pb;

use crate::Error;

/// The wire's "no such input" or "no such output".
const NONE: i64 = -1;

/// What a vertex does.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Brings in files from outside.
    Source(SourceOp),
    /// Runs a process.
    Exec(Box<ExecOp>),
    /// Changes files without a process.
    File(FileOp),
    /// Solves a graph that its inputs hold.
    Build(BuildOp),
    /// Puts inputs on top of each other.
    Merge(MergeOp),
    /// What one input has over another.
    Diff(DiffOp),
    /// Gives inputs as outputs.
    Passthrough(PassthroughOp),
}

impl Op {
    /// Reads and checks the operation of a vertex. `Ok(None)`: it has none, as the terminal vertex.
    pub fn from_pb(op: pb::Op) -> Result<Option<Self>, Error> {
        let inputs = op.inputs.len();
        let Some(op) = op.op else { return Ok(None) };
        Ok(Some(match op {
            pb::op::Op::Source(op) => Self::Source(op.into()),
            pb::op::Op::Exec(op) => Self::Exec(Box::new(ExecOp::from_pb(op, inputs)?)),
            pb::op::Op::File(op) => Self::File(FileOp::from_pb(op, inputs)?),
            pb::op::Op::Build(op) => Self::Build(BuildOp::from_pb(op, inputs)?),
            pb::op::Op::Merge(op) => Self::Merge(MergeOp::from_pb(op, inputs)?),
            pb::op::Op::Diff(op) => Self::Diff(DiffOp::from_pb(op, inputs)?),
            pb::op::Op::Passthrough(op) => Self::Passthrough(PassthroughOp::from_pb(op, inputs)?),
        }))
    }

    /// The protobuf form in a vertex with this many inputs.
    pub fn to_pb(&self, inputs: usize) -> pb::op::Op {
        match self {
            Self::Source(op) => pb::op::Op::Source(op.to_pb()),
            Self::Exec(op) => pb::op::Op::Exec(op.to_pb()),
            Self::File(op) => pb::op::Op::File(op.to_pb(inputs)),
            Self::Build(op) => pb::op::Op::Build(op.to_pb()),
            Self::Merge(op) => pb::op::Op::Merge(op.to_pb()),
            Self::Diff(op) => pb::op::Op::Diff(op.to_pb()),
            Self::Passthrough(op) => pb::op::Op::Passthrough(op.to_pb()),
        }
    }

    /// How many outputs the vertex has: one more than the highest that it names.
    pub fn output_count(&self) -> usize {
        match self {
            Self::Source(_) | Self::Build(_) | Self::Merge(_) | Self::Diff(_) => 1,
            Self::Exec(op) => op.output_count(),
            Self::File(op) => op.output_count(),
            Self::Passthrough(op) => op.outputs.len(),
        }
    }

    /// Whether the vertex's platform is part of what it does (and of its digest).
    pub(crate) fn is_platform_specific(&self) -> bool {
        match self {
            Self::Source(op) => op.is_platform_specific(),
            Self::Exec(_) | Self::Build(_) => true,
            Self::File(_) | Self::Merge(_) | Self::Diff(_) | Self::Passthrough(_) => false,
        }
    }

    /// Renumbers inputs. `map` gives for each old number the new one, or none for an input that turned out to be scratch.
    pub(crate) fn map_inputs(&mut self, map: &[Option<usize>]) -> Result<(), Error> {
        let at = |input: usize| map.get(input).copied().flatten();
        match self {
            Self::Source(_) => {}
            Self::Exec(op) => op.mounts.iter_mut().for_each(|mount| mount.input = mount.input.and_then(at)),
            Self::File(op) => op.map_inputs(&at),
            Self::Build(op) => {
                op.builder = op.builder.and_then(at);
                op.inputs = std::mem::take(&mut op.inputs)
                    .into_iter()
                    .filter_map(|(name, input)| Some((name, at(input)?)))
                    .collect();
            }
            Self::Merge(op) => op.inputs = op.inputs.iter().filter_map(|input| at(*input)).collect(),
            Self::Diff(op) => {
                op.lower = op.lower.and_then(at);
                op.upper = op.upper.and_then(at);
            }
            Self::Passthrough(op) => {
                op.outputs = op
                    .outputs
                    .iter()
                    .map(|input| at(*input).ok_or(Error::Incomplete("passthrough output from scratch")))
                    .collect::<Result<_, _>>()?;
            }
        }
        Ok(())
    }
}

/// An input number from the wire: -1 is none, anything else must exist.
fn input_from_wire(input: i64, inputs: usize) -> Result<Option<usize>, Error> {
    if input == NONE {
        return Ok(None);
    }
    required_input(input, inputs).map(Some)
}

/// An input number from the wire that must exist.
fn required_input(input: i64, inputs: usize) -> Result<usize, Error> {
    usize::try_from(input).ok().filter(|index| *index < inputs).ok_or(Error::InputIndex(input))
}

fn to_wire(index: Option<usize>) -> i64 {
    index.map_or(NONE, |index| index as i64)
}

/// An output number from the wire: -1 is none; `count` bounds it.
fn output_from_wire(output: i64, count: usize) -> Result<Option<usize>, Error> {
    if output == NONE {
        return Ok(None);
    }
    match usize::try_from(output) {
        Ok(index) if index < count => Ok(Some(index)),
        _ => Err(Error::Invalid(format!("output index {output}"))),
    }
}
