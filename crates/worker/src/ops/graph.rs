//! The small operations: merge, diff, build, passthrough.

use kiln_llb::{BuildOp, DiffOp, LLB_DEFINITION_FILE, MergeOp, PassthroughOp, attrs};
use kiln_proto::pb;
use kiln_proto::prost::Message;
use kiln_solver::OpContext;
use kiln_store::{LayerMeta, Ref};

use crate::context::{first_build, sessions_of};
use crate::error::{Error, Result};
use crate::op::VertexOp;

/// Largest definition that is read from a file of a build.
const DEFINITION_BYTES_MAX: u64 = 64 << 20;

/// Inputs on top of each other: the list of all their layers.
pub async fn merge(vertex: &VertexOp, op: &MergeOp, inputs: &[Ref]) -> Result<Ref> {
    let refs: Vec<Ref> = op.inputs.iter().filter_map(|input| inputs.get(*input).cloned()).collect();
    let store = vertex.worker().store().clone();
    Ok(vertex.worker().blocking(move || store.merge(&refs)).await??)
}

/// What one input has over another.
pub async fn diff(vertex: &VertexOp, op: &DiffOp, inputs: &[Ref], cx: &OpContext<VertexOp>) -> Result<Ref> {
    let side = |input: Option<usize>| {
        input.and_then(|input| inputs.get(input).cloned()).unwrap_or_else(Ref::scratch)
    };
    let (lower, upper) = (side(op.lower), side(op.upper));
    let worker = vertex.worker();
    if !upper.starts_with(&lower) {
        // Compared file by file, for which they have to be there.
        for reference in [&lower, &upper] {
            worker.unpack(reference, &sessions_of(cx), Some(&cx.progress())).await?;
        }
    }
    let store = worker.store().clone();
    let meta = LayerMeta::regular(vertex.vertex().name.clone());
    Ok(worker.blocking(move || store.diff(&lower, &upper, meta)).await??)
}

/// Inputs as outputs.
pub fn passthrough(op: &PassthroughOp, inputs: &[Ref]) -> Vec<Ref> {
    op.outputs.iter().map(|input| inputs.get(*input).cloned().unwrap_or_else(Ref::scratch)).collect()
}

/// Solves the definition that an input holds in a file.
pub async fn build(vertex: &VertexOp, op: &BuildOp, inputs: &[Ref], cx: &OpContext<VertexOp>) -> Result<Ref> {
    if op.builder.is_some() {
        return Err(Error::Text("only LLB builder is currently allowed".into()));
    }
    let input = op
        .inputs
        .get(LLB_DEFINITION_FILE)
        .ok_or_else(|| Error::Text(format!("no llb definition input {LLB_DEFINITION_FILE} found")))?;
    let input = inputs.get(*input).ok_or_else(|| Error::Text(format!("invalid index {input}")))?;
    let worker = vertex.worker();
    worker.unpack(input, &sessions_of(cx), Some(&cx.progress())).await?;
    let file = op.attrs.get(attrs::LLB_DEFINITION_FILENAME).map_or(LLB_DEFINITION_FILE, String::as_str);
    let bytes = worker.read_whole_file(input, file, DEFINITION_BYTES_MAX).await?;
    let definition =
        pb::Definition::decode(bytes).map_err(|error| Error::Llb(kiln_llb::Error::Decode(error)))?;
    let build = first_build(cx)?;
    let loaded = worker.load(&definition, &build).await?;
    let solved = cx.sub_build(&loaded.graph, &loaded.edge, build.build_options()).await;
    Ok(solved.map_err(|error| Error::Nested(Box::new(error)))?.into_output())
}
