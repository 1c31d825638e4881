//! Failures of the solver and the worker as frontends and clients get them: BuildKit's text, with the vertex and the lines beside it.

use kiln_frontend::{Detail, Error};
use kiln_proto::prost::Message;
use kiln_proto::{errdefs, pb};
use kiln_solver::SolveError;
use kiln_worker::VertexOp;

/// A worker's error, outside of any vertex.
pub fn of_worker(error: kiln_worker::Error) -> Error {
    Error::of(&error).hint(error.hint())
}

/// The solver's error.
pub(super) fn of_solver(error: &SolveError<VertexOp>) -> Error {
    if error.is_cancelled() {
        return Error::cancelled();
    }
    let mut told = Error::of(error).hint(error.op_error().and_then(kiln_worker::Error::hint));
    if let Some(op) = &error.op {
        told = told.with(Detail::Solve(Box::new(errdefs::Solve {
            op: pb::Op::decode(op.vertex().bytes.clone()).ok(),
            description: (*error.description).clone(),
            ..errdefs::Solve::default()
        })));
        if !told.has_source() {
            for place in &op.vertex().locations {
                told = told.at(info(&place.source), place.ranges.clone());
            }
        }
    }
    match &error.vertex {
        Some(vertex) => told.with(Detail::Vertex(errdefs::Vertex { digest: vertex.to_string() })),
        None => told,
    }
}

fn info(source: &kiln_llb::SourceMap) -> pb::SourceInfo {
    pb::SourceInfo {
        filename: source.filename.clone(),
        data: source.data.clone(),
        definition: source.definition.clone(),
        language: source.language.clone(),
    }
}
