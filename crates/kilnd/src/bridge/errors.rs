//! Failures of the solver and the worker as frontends and clients get them: BuildKit's text, with the vertex and the lines beside it.

use kiln_frontend::{Detail, Error};
use kiln_proto::prost::Message;
use kiln_proto::{errdefs, pb};
use kiln_solver::SolveError;
use kiln_worker::VertexOp;

/// A worker's error, outside of any vertex.
pub fn of_worker(error: kiln_worker::Error) -> Error {
    if let kiln_worker::Error::Policy(refused) = &error
        && let Some(refused) = refused.downcast_ref::<Error>()
    {
        return refused.clone();
    }
    let told = Error::of(&error).hint(error.hint());
    if error.is_missing_path() { told.with_code(tonic::Code::NotFound) } else { told }
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
            description: error.description.iter().cloned().collect(),
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

#[cfg(test)]
mod tests {
    use kiln_worker::{Errno, PathError};

    use super::of_worker;

    #[test]
    fn a_file_that_is_not_there_is_not_found() {
        let told = of_worker(PathError::new("open", "/a", Errno::NOENT).into());
        assert!(told.is_not_found());
        assert_eq!(told.message(), "open /a: no such file or directory");
        assert!(!of_worker(PathError::new("open", "/a", Errno::ACCESS).into()).is_not_found());
    }
}
