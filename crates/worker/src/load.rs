//! From a definition to the solver's graph.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_llb::{NetMode, Op, SecurityMode};
use kiln_oci::{Digest, Platform};
use kiln_proto::pb;
use kiln_solver::{Edge, Graph, ProgressGroup, Vertex, VertexOptions};

use crate::Worker;
use crate::context::{BuildContext, Entitlements};
use crate::error::{Error, Result};
use crate::op::VertexOp;

/// A loaded definition.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub graph: Graph<VertexOp>,
    /// What the definition is for.
    pub edge: Edge,
    /// The definition as the source policy left it: digests in errors and progress are those of its vertices.
    pub definition: kiln_llb::Graph,
}

impl Worker {
    /// Reads a definition, lets the build's policy judge its sources and checks that the build may do what it asks for.
    ///
    /// # Errors
    /// A definition that is none, a source that is denied, a privilege that was not granted.
    pub async fn load(&self, definition: &pb::Definition, build: &Arc<BuildContext>) -> Result<Loaded> {
        let graph = apply_policy(kiln_llb::Graph::load(definition)?, self, build).await?;
        let mut vertices = Vec::with_capacity(graph.vertices().len());
        let mut digests = HashMap::with_capacity(graph.vertices().len());
        let mut without_cache = Vec::new();
        let mut platforms = Platforms::new(self);
        for vertex in graph.vertices() {
            check_entitlements(&vertex.op, build.entitlements())?;
            if let (Op::Exec(exec), true) = (&vertex.op, vertex.metadata.ignore_cache) {
                without_cache.extend_from_slice(&exec.mounts);
            }
            let solver_vertex = self.vertex(vertex, &digests, &mut platforms);
            digests.insert(&vertex.digest, solver_vertex.digest.clone());
            vertices.push(solver_vertex);
        }
        self.forget_caches(&without_cache)?;
        let result = graph.result();
        let edge = Edge::new(solver_digest(&result.vertex), result.index);
        let solver_graph = Graph::new(vertices).map_err(|error| Error::Text(error.to_string()))?;
        Ok(Loaded { graph: solver_graph, edge, definition: graph })
    }

    /// `inputs` has the digests of what was loaded before it, to share their texts.
    fn vertex(
        &self,
        vertex: &Arc<kiln_llb::Vertex>,
        inputs: &HashMap<&Digest, kiln_solver::Digest>,
        platforms: &mut Platforms<'_>,
    ) -> Vertex<VertexOp> {
        let metadata = &vertex.metadata;
        let options = VertexOptions {
            ignore_cache: metadata.ignore_cache,
            export_cache: metadata.export_cache,
            name: vertex.name.as_str().into(),
            description: metadata.description.clone(),
            progress_group: metadata.progress_group.as_ref().map(|group| {
                Arc::new(ProgressGroup { id: group.id.clone(), name: group.name.clone(), weak: group.weak })
            }),
        };
        let edge = |edge: &kiln_llb::Edge| {
            let known = inputs.get(&edge.vertex).cloned();
            Edge::new(known.unwrap_or_else(|| solver_digest(&edge.vertex)), edge.index)
        };
        Vertex {
            digest: solver_digest(&vertex.digest),
            op: Arc::new(VertexOp::new(self.clone(), vertex.clone(), platforms.of(vertex.platform.as_ref()))),
            inputs: vertex.inputs.iter().map(edge).collect(),
            options: Arc::new(options),
        }
    }
}

/// The platforms that the vertices of a graph mean, each of which many of them share.
struct Platforms<'a> {
    worker: &'a Worker,
    last: Option<(Option<Arc<Platform>>, Arc<Platform>)>,
}

impl<'a> Platforms<'a> {
    fn new(worker: &'a Worker) -> Self {
        Self { worker, last: None }
    }

    fn of(&mut self, given: Option<&Arc<Platform>>) -> Arc<Platform> {
        if let Some((asked, meant)) = &self.last
            && asked.as_ref() == given
        {
            return meant.clone();
        }
        let meant = Arc::new(self.worker.platform_of(given.map(Arc::as_ref)));
        self.last = Some((given.cloned(), meant.clone()));
        meant
    }
}

fn solver_digest(digest: &Digest) -> kiln_solver::Digest {
    kiln_solver::Digest::new(digest.as_str())
}

async fn apply_policy(
    graph: kiln_llb::Graph,
    worker: &Worker,
    build: &BuildContext,
) -> Result<kiln_llb::Graph> {
    let Some(policy) = build.policy() else { return Ok(graph) };
    let mut changed = HashMap::new();
    for vertex in graph.vertices() {
        let Op::Source(source) = &vertex.op else { continue };
        let platform = worker.platform_of(vertex.platform.as_deref());
        let mut judged = source.clone();
        policy.evaluate(&mut judged, &platform).await.map_err(Error::Policy)?;
        if judged != *source {
            changed.insert(vertex.digest.clone(), judged);
        }
    }
    if changed.is_empty() { Ok(graph) } else { Ok(graph.replace_sources(&changed)?) }
}

fn check_entitlements(op: &Op, granted: Entitlements) -> Result<()> {
    let Op::Exec(exec) = op else { return Ok(()) };
    if exec.network == NetMode::Host && !granted.network_host {
        return Err(Error::Entitlement("network.host"));
    }
    if exec.security == SecurityMode::Insecure && !granted.security_insecure {
        return Err(Error::Entitlement("security.insecure"));
    }
    if let Some(device) = exec.devices.iter().find(|device| !device.optional) {
        // There are no CDI devices here; what a build could not do without is an error.
        return Err(Error::Text(format!("device {} is requested by the build but not allowed", device.name)));
    }
    Ok(())
}
