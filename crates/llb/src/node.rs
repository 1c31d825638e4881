//! Steps of a graph that is being made, before their digests are known.

use std::fmt;
use std::sync::{Arc, OnceLock};

use kiln_oci::{Digest, Platform};

use crate::constraints::Constraints;
use crate::graph::{Edge, Graph};
use crate::op::Op;

/// One result of a step; cheap to clone. Two outputs are equal if they are the same output of the same step.
#[derive(Clone)]
pub struct Output(pub(crate) OutputKind);

#[derive(Clone)]
pub(crate) enum OutputKind {
    /// Output `index` of a step made here.
    Node { node: Arc<Node>, index: usize },
    /// An output of a graph that was read.
    Foreign { graph: Arc<Graph>, edge: Edge },
    /// To be set before the graph is written down.
    Late(LateOutput),
}

/// A step. The operation's input numbers count `deps`, also those that turn out to be scratch or equal.
pub(crate) struct Node {
    pub op: Op,
    pub deps: Vec<Output>,
    pub constraints: Constraints,
}

impl Output {
    pub(crate) fn of(node: Node) -> Self {
        Self(OutputKind::Node { node: Arc::new(node), index: 0 })
    }

    /// The platform that a source or a run is for, if it says so itself; other steps have none of their own.
    pub fn platform(&self) -> Option<&Platform> {
        match &self.0 {
            OutputKind::Node { node, .. } => match node.op {
                Op::Source(_) | Op::Exec(_) => node.constraints.platform.as_ref(),
                _ => None,
            },
            OutputKind::Foreign { graph, edge } => graph.vertex(&edge.vertex)?.platform.as_deref(),
            OutputKind::Late(late) => late.0.platform.as_ref(),
        }
    }

    /// What it stands for once late outputs are resolved: none is scratch.
    pub(crate) fn resolve(&self) -> Result<Option<Output>, crate::Error> {
        let mut output = self.clone();
        while let OutputKind::Late(late) = &output.0 {
            match late.0.cell.get() {
                None => return Err(crate::Error::LateOutput(late.0.name.clone())),
                Some(None) => return Ok(None),
                Some(Some(next)) => output = next.clone(),
            }
        }
        Ok(Some(output))
    }
}

impl PartialEq for Output {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (OutputKind::Node { node: a, index: i }, OutputKind::Node { node: b, index: j }) => {
                Arc::ptr_eq(a, b) && i == j
            }
            (OutputKind::Foreign { edge: a, .. }, OutputKind::Foreign { edge: b, .. }) => a == b,
            (OutputKind::Late(a), OutputKind::Late(b)) => Arc::ptr_eq(&a.0, &b.0),
            _ => false,
        }
    }
}

impl Eq for Output {}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            OutputKind::Node { node, index } => write!(f, "Output({:?} #{index})", node.op),
            OutputKind::Foreign { edge, .. } => write!(f, "Output({} #{})", edge.vertex, edge.index),
            OutputKind::Late(late) => write!(f, "Output(late {})", late.0.name),
        }
    }
}

/// An output whose step is known later than its users, such as a build context whose list of needed paths grows while its users
/// are converted. Set it once, before [`crate::State::marshal`].
#[derive(Clone)]
pub struct LateOutput(Arc<Late>);

struct Late {
    name: String,
    platform: Option<Platform>,
    cell: OnceLock<Option<Output>>,
}

impl LateOutput {
    /// Not set yet; `name` appears in the error if it never is.
    pub fn new(name: impl Into<String>, platform: Option<Platform>) -> Self {
        Self(Arc::new(Late { name: name.into(), platform, cell: OnceLock::new() }))
    }

    /// Sets it; none is scratch. Gives back the output if it was set before. It must not depend on itself.
    pub fn set(&self, output: Option<Output>) -> Result<(), Option<Output>> {
        self.0.cell.set(output)
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.0.cell.get().is_some()
    }

    /// As an output.
    pub fn output(&self) -> Output {
        Output(OutputKind::Late(self.clone()))
    }
}

/// Long chains are taken apart in a loop: one call per step would overflow the stack.
impl Drop for Node {
    fn drop(&mut self) {
        let mut pending = std::mem::take(&mut self.deps);
        while let Some(output) = pending.pop() {
            if let OutputKind::Node { node, .. } = output.0
                && let Some(mut node) = Arc::into_inner(node)
            {
                pending.append(&mut node.deps);
            }
        }
    }
}

/// An edge in digests, as vertices refer to each other on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WireInput {
    pub digest: Digest,
    pub index: usize,
}
