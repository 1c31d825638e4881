//! The graph that a build hands to the solver: vertices in an order where inputs come first.
//!
//! A flat list rather than a tree of pointers, so that a chain of any length is loaded, shared and dropped
//! without recursion.

use crate::{Digest, Op};
use std::collections::HashMap;
use std::sync::Arc;

/// One output of one vertex.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Digest of the vertex.
    pub vertex: Digest,
    /// Which of the op's outputs.
    pub output: usize,
}

impl Edge {
    /// Output `output` of `vertex`.
    pub fn new(vertex: Digest, output: usize) -> Self {
        Edge { vertex, output }
    }
}

/// A group of vertices that displays show as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Groups with equal ids are one.
    pub id: String,
    /// What to show.
    pub name: String,
    /// A weak group does not swallow the names of its vertices.
    pub weak: bool,
}

/// What belongs to a vertex without being part of its digest.
#[derive(Clone, Debug, Default)]
pub struct VertexOptions {
    /// Do not look the vertex up in any cache; its result is saved all the same.
    pub ignore_cache: bool,
    /// Whether a cache export takes the result of this vertex: yes, no, or as the exporter's mode has it.
    pub export_cache: Option<bool>,
    /// What displays call it.
    pub name: Arc<str>,
    /// Free text for displays and errors.
    pub description: Arc<[(String, String)]>,
    /// Group in displays.
    pub progress_group: Option<Arc<ProgressGroup>>,
}

/// One node: an op with its inputs. Cheap to clone.
#[derive(Debug)]
pub struct Vertex<O> {
    /// Digest of the definition up to here, inputs included. Equal digests mean: the same vertex.
    pub digest: Digest,
    /// What it does.
    pub op: Arc<O>,
    /// Where its inputs come from, in the op's order.
    pub inputs: Arc<[Edge]>,
    /// Names and flags.
    pub options: Arc<VertexOptions>,
}

impl<O> Clone for Vertex<O> {
    fn clone(&self) -> Self {
        Vertex {
            digest: self.digest.clone(),
            op: self.op.clone(),
            inputs: self.inputs.clone(),
            options: self.options.clone(),
        }
    }
}

/// Why a list of vertices is no graph.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GraphError {
    /// An input that is not earlier in the list.
    #[error("vertex {vertex} uses input {input}, which is not defined before it")]
    UnknownInput {
        /// The vertex.
        vertex: Digest,
        /// What it asks for.
        input: Digest,
    },
    /// The same digest twice.
    #[error("vertex {0} is defined twice")]
    Duplicate(Digest),
}

/// Vertices, every one after its inputs, each once. Cheap to clone.
#[derive(Debug)]
pub struct Graph<O> {
    vertices: Arc<[Vertex<O>]>,
    by_digest: Arc<HashMap<Digest, usize>>,
}

impl<O> Clone for Graph<O> {
    fn clone(&self) -> Self {
        Graph { vertices: self.vertices.clone(), by_digest: self.by_digest.clone() }
    }
}

impl<O: Op> Graph<O> {
    /// Checks that inputs come first and no digest occurs twice.
    pub fn new(vertices: Vec<Vertex<O>>) -> Result<Self, GraphError> {
        let mut by_digest = HashMap::with_capacity(vertices.len());
        for (index, vertex) in vertices.iter().enumerate() {
            for input in vertex.inputs.iter() {
                if !by_digest.contains_key(&input.vertex) {
                    return Err(GraphError::UnknownInput {
                        vertex: vertex.digest.clone(),
                        input: input.vertex.clone(),
                    });
                }
            }
            if by_digest.insert(vertex.digest.clone(), index).is_some() {
                return Err(GraphError::Duplicate(vertex.digest.clone()));
            }
        }
        Ok(Graph { vertices: vertices.into(), by_digest: Arc::new(by_digest) })
    }

    /// All vertices, inputs first.
    pub fn vertices(&self) -> &[Vertex<O>] {
        &self.vertices
    }

    /// The vertex with this digest.
    pub fn get(&self, digest: &Digest) -> Option<&Vertex<O>> {
        self.by_digest.get(digest).map(|index| &self.vertices[*index])
    }

    /// The place in [`Graph::vertices`] of the vertex with this digest.
    pub(crate) fn position(&self, digest: &Digest) -> Option<usize> {
        self.by_digest.get(digest).copied()
    }
}
