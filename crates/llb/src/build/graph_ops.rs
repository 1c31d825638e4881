//! Merge, diff, passthrough.

use crate::constraints::Constraints;
use crate::error::Error;
use crate::node::{Node, Output, OutputKind};
use crate::op::{DiffOp, MergeOp, Op, PassthroughOp};
use crate::{State, caps};

/// An input of [`State::passthrough`].
#[derive(Debug, Clone)]
pub struct PassthroughInput {
    /// The input.
    pub state: State,
    /// It is an output as well.
    pub output: bool,
}

impl State {
    /// Puts file systems on top of each other, the first one lowest. Scratch ones do not count; the settings are those of the first
    /// that does. Fewer than two give that one itself.
    pub fn merge(inputs: &[State], mut constraints: Constraints) -> State {
        let inputs: Vec<&State> = inputs.iter().filter(|state| !state.is_scratch()).collect();
        match inputs.as_slice() {
            [] => State::scratch(),
            [only] => (*only).clone(),
            [first, ..] => {
                constraints.need(caps::MERGEOP);
                let deps = inputs.iter().filter_map(|state| state.output().cloned()).collect();
                let op = Op::Merge(MergeOp { inputs: (0..inputs.len()).collect() });
                first.with_output(Some(Output::of(Node { op, deps, constraints })))
            }
        }
    }

    /// What `upper` has over `lower`, with the settings of `lower`.
    pub fn diff(lower: &State, upper: &State, mut constraints: Constraints) -> State {
        let Some(lower_output) = lower.output() else { return upper.clone() };
        constraints.need(caps::DIFFOP);
        let mut deps = vec![lower_output.clone()];
        let upper = upper.output().map(|output| {
            deps.push(output.clone());
            1
        });
        let op = Op::Diff(DiffOp { lower: Some(0), upper });
        lower.with_output(Some(Output::of(Node { op, deps, constraints })))
    }

    /// Depends on all inputs and gives some of them, in order.
    pub fn passthrough(
        id: impl Into<String>,
        inputs: &[PassthroughInput],
        mut constraints: Constraints,
    ) -> Result<Vec<State>, Error> {
        constraints.need(caps::PASSTHROUGHOP);
        let mut deps = Vec::new();
        let mut outputs = Vec::new();
        for input in inputs {
            let Some(output) = input.state.output() else { continue };
            if input.output {
                outputs.push(deps.len());
            }
            deps.push(output.clone());
        }
        let id = id.into();
        if deps.is_empty() {
            return Err(Error::Incomplete("passthrough must have at least one input"));
        }
        if id.is_empty() {
            return Err(Error::Incomplete("passthrough requires an id"));
        }
        if outputs.is_empty() {
            return Err(Error::Incomplete("passthrough must have at least one output"));
        }
        let count = outputs.len();
        let node = Node { op: Op::Passthrough(PassthroughOp { id, outputs }), deps, constraints };
        let node = std::sync::Arc::new(node);
        Ok((0..count)
            .map(|index| State::new(Some(Output(OutputKind::Node { node: node.clone(), index }))))
            .collect())
    }
}
