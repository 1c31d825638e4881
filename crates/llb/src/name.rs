//! What progress calls a vertex that has no name of its own.

use std::sync::Arc;

use indexmap::IndexMap;
use kiln_oci::Digest;

use crate::graph::{Edge, Vertex};
use crate::op::{FileActionKind, Op};

/// Names contain the names of inputs, which doubles them with every merge: they end here, in bytes.
const NAME_BYTES_MAX: usize = 4096;

/// The name of a vertex whose inputs are known.
pub(crate) fn of_vertex(op: &Op, inputs: &[Edge], vertices: &IndexMap<Digest, Arc<Vertex>>) -> String {
    let input = |number: usize| {
        let vertex = inputs.get(number).and_then(|edge| vertices.get(&edge.vertex));
        vertex.map_or("", |vertex| vertex.name.as_str())
    };
    let side = |number: Option<usize>| match number {
        None => "scratch".to_string(),
        Some(number) => format!("({})", input(number)),
    };
    let name = match op {
        Op::Merge(_) => {
            let names: Vec<&str> = (0..inputs.len()).map(input).collect();
            format!("merge ({})", names.join(", "))
        }
        Op::Diff(op) => format!("diff {} -> {}", side(op.lower), side(op.upper)),
        op => of_op(op),
    };
    shortened(name)
}

/// The name that the operation alone gives.
pub(crate) fn of_op(op: &Op) -> String {
    match op {
        Op::Source(op) => op.identifier.clone(),
        Op::Exec(op) => op.meta.args.join(" "),
        Op::File(op) => {
            let names = op.actions.iter().map(|action| match &action.kind {
                FileActionKind::Copy(copy) => format!("copy {} {}", copy.src, copy.dest),
                FileActionKind::Mkfile(file) => format!("mkfile {}", file.path),
                FileActionKind::Mkdir(dir) => format!("mkdir {}", dir.path),
                FileActionKind::Rm(rm) => format!("rm {}", rm.path),
                FileActionKind::Symlink(link) => format!("symlink {} -> {}", link.path, link.target),
            });
            names.collect::<Vec<_>>().join(", ")
        }
        Op::Build(_) => "build".into(),
        Op::Merge(_) => "merge".into(),
        Op::Diff(_) => "diff".into(),
        Op::Passthrough(op) => format!("passthrough {}", op.id),
    }
}

fn shortened(mut name: String) -> String {
    if name.len() > NAME_BYTES_MAX {
        let end = (0..=NAME_BYTES_MAX).rev().find(|end| name.is_char_boundary(*end));
        name.truncate(end.unwrap_or(0));
        name.push('…');
    }
    name
}
