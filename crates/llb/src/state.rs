//! A file system to be, together with what the next step starts from.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_oci::Platform;
use kiln_proto::pb;

use crate::constraints::{Constraints, MarshalOptions};
use crate::env::EnvList;
use crate::error::Error;
use crate::gopath;
use crate::graph::Graph;
use crate::node::{LateOutput, Node, Output, OutputKind};
use crate::op::{ExtraHost, NetMode, Op, SecurityMode, SourceOp, Ulimit};

/// A file system to be (none: scratch) and settings. Immutable and cheap to clone; every step gives a new state.
#[derive(Debug, Clone)]
pub struct State {
    output: Option<Output>,
    settings: Arc<Settings>,
}

/// What a step started from a state takes over.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Environment variables.
    pub env: EnvList,
    /// Working directory, absolute.
    pub dir: String,
    /// `user[:group]`; empty: root.
    pub user: String,
    /// Name of the machine; empty: the default.
    pub hostname: String,
    /// Network of processes.
    pub network: NetMode,
    /// Privileges of processes.
    pub security: SecurityMode,
    /// Platform of steps.
    pub platform: Option<Platform>,
    /// Resource limits.
    pub ulimits: Vec<Ulimit>,
    /// Lines of `/etc/hosts`.
    pub extra_hosts: Vec<ExtraHost>,
    /// Parent of the control group; empty: the default.
    pub cgroup_parent: String,
    /// Exit codes that are no failure; empty: 0 only.
    pub valid_exit_codes: Vec<i32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            env: EnvList::new(),
            dir: "/".into(),
            user: String::new(),
            hostname: String::new(),
            network: NetMode::default(),
            security: SecurityMode::default(),
            platform: None,
            ulimits: Vec::new(),
            extra_hosts: Vec::new(),
            cgroup_parent: String::new(),
            valid_exit_codes: Vec::new(),
        }
    }
}

impl State {
    /// An empty file system with default settings.
    pub fn scratch() -> Self {
        Self { output: None, settings: Arc::default() }
    }

    /// An output (none: scratch) with default settings but for its platform.
    pub fn new(output: Option<Output>) -> Self {
        Self::scratch().with_output(output)
    }

    /// An output that is set later.
    pub fn late(late: &LateOutput) -> Self {
        Self::new(Some(late.output()))
    }

    /// A source by identifier (`scheme://ref`) and attributes; `caps` are what the scheme and attributes need.
    pub fn source(
        identifier: impl Into<String>,
        attrs: BTreeMap<String, String>,
        caps: &[&str],
        mut constraints: Constraints,
    ) -> Self {
        for cap in caps {
            constraints.need(cap);
        }
        let op = Op::Source(SourceOp { identifier: identifier.into(), attrs });
        Self::new(Some(Output::of(Node { op, deps: Vec::new(), constraints })))
    }

    /// The result of a graph that someone else made.
    pub fn from_definition(definition: &pb::Definition) -> Result<Self, Error> {
        if definition.def.is_empty() {
            return Ok(Self::scratch());
        }
        let graph = Arc::new(Graph::load(definition)?);
        let edge = graph.result().clone();
        Ok(Self::new(Some(Output(OutputKind::Foreign { graph, edge }))))
    }

    /// The file system; none: scratch.
    pub fn output(&self) -> Option<&Output> {
        self.output.as_ref()
    }

    /// Whether there is no file system.
    pub fn is_scratch(&self) -> bool {
        self.output.is_none()
    }

    /// The same settings over another file system. An output that knows its platform brings it along.
    pub fn with_output(&self, output: Option<Output>) -> Self {
        let platform = output.as_ref().and_then(Output::platform).cloned();
        let state = Self { output, settings: self.settings.clone() };
        match platform {
            Some(platform) => state.with(|settings| settings.platform = Some(platform)),
            None => state,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The same file system with changed settings.
    pub fn with(&self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut state = self.clone();
        change(Arc::make_mut(&mut state.settings));
        state
    }

    /// Sets a variable; it is the last one now.
    pub fn add_env(&self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|settings| settings.env.set(key, value))
    }

    /// Changes the working directory; a relative one is below the present one.
    pub fn dir(&self, dir: &str) -> Self {
        self.with(|settings| {
            settings.dir = if dir.starts_with('/') {
                dir.to_string()
            } else {
                gopath::join(&["/", settings.dir.as_str(), dir])
            };
        })
    }

    /// Changes the user.
    pub fn user(&self, user: impl Into<String>) -> Self {
        self.with(|settings| settings.user = user.into())
    }

    /// Changes the platform of later steps.
    pub fn platform(&self, platform: Platform) -> Self {
        self.with(|settings| settings.platform = Some(platform))
    }

    /// Writes the graph down: each vertex once, in an order in which inputs come first, the terminal vertex last.
    ///
    /// Scratch gives a definition without vertices. Fails if a late output was not set or a step is incomplete.
    pub fn marshal(&self, options: &MarshalOptions) -> Result<pb::Definition, Error> {
        crate::marshal::marshal(self.output.as_ref(), options)
    }
}
