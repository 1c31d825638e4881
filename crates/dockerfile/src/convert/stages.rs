//! The stages of a conversion and how they depend on each other.

use super::contexts::NamedContext;
use super::error::ConvertError;
use crate::error::Error;
use crate::instruction::{Command, Stage};
use crate::location::Range;
use crate::outline::Capture;
use kiln_llb::State;
use kiln_oci::{Image, Platform};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The name of a base that is nothing.
pub(super) const SCRATCH: &str = "scratch";

/// A stage by its place in the list.
pub(super) type StageId = usize;

/// Paths that are used of a stage's file system. A stage and those that are based on it share them.
#[derive(Debug, Clone, Default)]
pub(super) struct UsedPaths(Arc<Mutex<BTreeSet<String>>>);

impl UsedPaths {
    pub(super) fn add(&self, path: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    pub(super) fn get(&self) -> BTreeSet<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An instruction of a stage.
#[derive(Debug, Clone)]
pub(super) struct StageCommand {
    pub(super) command: Command,
    /// The stages that it takes files from: one for a `COPY --from`, one for each mount of a `RUN`.
    pub(super) sources: Vec<StageId>,
    /// It comes from a trigger of the base.
    pub(super) is_onbuild: bool,
}

/// The last use of an instruction that counts only once.
#[derive(Debug, Clone, Default)]
pub(super) struct Once(pub(super) Option<Vec<Range>>);

/// A stage, or an image that files are taken from.
#[derive(Debug)]
pub(super) struct StageState {
    pub(super) stage: Stage,
    /// The name in the names of steps; empty for none.
    pub(super) shown_name: String,
    pub(super) state: State,
    pub(super) image: Image,
    /// The config of the base image as it was found.
    pub(super) base_image: Option<Image>,
    pub(super) platform: Option<Platform>,
    /// What stands in its place.
    pub(super) named_context: Option<NamedContext>,
    /// The stage that it is based on.
    pub(super) base: Option<StageId>,
    /// The stages that it takes files from, each with the place of the last instruction that does.
    pub(super) deps: Vec<(StageId, Vec<Range>)>,
    pub(super) commands: Vec<StageCommand>,
    /// `ARG`s so far, those of the base after its own.
    pub(super) build_args: Vec<crate::instruction::ArgDefinition>,
    /// Paths used of the main context.
    pub(super) context_paths: BTreeSet<String>,
    pub(super) paths: UsedPaths,
    pub(super) ignore_cache: bool,
    /// It is no stage of the Dockerfile.
    pub(super) unregistered: bool,
    /// Its base was looked up.
    pub(super) resolved: bool,
    /// It is converted.
    pub(super) dispatched: bool,
    /// The triggers of its base stage are taken over.
    pub(super) triggers_done: bool,
    /// Steps with a number in their names: how many, and how many so far.
    pub(super) step_count: usize,
    pub(super) step_index: usize,
    pub(super) step_is_onbuild: bool,
    pub(super) capture: Capture,
    pub(super) scan_stage: bool,
    pub(super) scan_context: bool,
    /// Ports written out so far.
    pub(super) port_count: usize,
    /// A `WORKDIR` was given.
    pub(super) workdir_set: bool,
    pub(super) entrypoint: Once,
    pub(super) cmd: Once,
    pub(super) healthcheck: Once,
}

impl StageState {
    pub(super) fn new(stage: Stage, capture: Capture) -> Self {
        Self {
            shown_name: stage.name.clone(),
            stage,
            state: State::scratch(),
            image: Image::default(),
            base_image: None,
            platform: None,
            named_context: None,
            base: None,
            deps: Vec::new(),
            commands: Vec::new(),
            build_args: Vec::new(),
            context_paths: BTreeSet::new(),
            paths: UsedPaths::default(),
            ignore_cache: false,
            unregistered: false,
            resolved: false,
            dispatched: false,
            triggers_done: false,
            step_count: 0,
            step_index: 0,
            step_is_onbuild: false,
            capture,
            scan_stage: false,
            scan_context: false,
            port_count: 0,
            workdir_set: false,
            entrypoint: Once::default(),
            cmd: Once::default(),
            healthcheck: Once::default(),
        }
    }

    /// Keeps only what files can be taken from; nothing is based on it any more.
    pub(super) fn retire(&mut self) {
        self.state = State::new(self.state.output().cloned());
        self.image = Image::default();
        self.base_image = None;
        self.build_args = Vec::new();
        self.commands = Vec::new();
    }

    pub(super) fn depend_on(&mut self, stage: StageId, location: &[Range]) {
        match self.deps.iter_mut().find(|(known, _)| *known == stage) {
            Some(dep) => dep.1 = location.to_vec(),
            None => self.deps.push((stage, location.to_vec())),
        }
    }
}

/// All stages, in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Stages {
    list: Vec<StageState>,
    by_name: HashMap<String, StageId>,
}

impl std::ops::Index<StageId> for Stages {
    type Output = StageState;

    fn index(&self, id: StageId) -> &StageState {
        &self.list[id]
    }
}

impl std::ops::IndexMut<StageId> for Stages {
    fn index_mut(&mut self, id: StageId) -> &mut StageState {
        &mut self.list[id]
    }
}

impl Stages {
    pub(super) fn ids(&self) -> std::ops::Range<StageId> {
        0..self.list.len()
    }

    /// Adds a stage; its base is the latest stage of that name so far, if there is one.
    pub(super) fn add(&mut self, mut stage: StageState) -> StageId {
        let id = self.list.len();
        if let Some(base) = self.by_name.get(&stage.stage.base_name) {
            stage.base = Some(*base);
            stage.capture = self.list[*base].capture.clone();
        }
        if !stage.stage.name.is_empty() {
            self.by_name.insert(stage.stage.name.to_lowercase(), id);
        }
        self.list.push(stage);
        id
    }

    pub(super) fn find(&self, name: &str) -> Option<StageId> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    pub(super) fn find_index(&self, index: i64) -> Result<StageId, ConvertError> {
        usize::try_from(index)
            .ok()
            .filter(|index| *index < self.list.len())
            .ok_or(ConvertError::StageIndex(index))
    }

    /// Names for suggestions.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|stage| stage.shown_name.as_str()).filter(|name| !name.is_empty())
    }

    /// Everything that `target` depends on, itself included.
    pub(super) fn reachable(&self, target: StageId) -> HashSet<StageId> {
        let mut reachable = HashSet::new();
        let mut pending = vec![target];
        while let Some(id) = pending.pop() {
            if reachable.insert(id) {
                let stage = &self.list[id];
                pending.extend(stage.base);
                pending.extend(stage.deps.iter().map(|(dep, _)| *dep));
            }
        }
        reachable
    }

    /// No stage takes files from itself, not even by way of others.
    pub(super) fn check_circles(&self) -> Result<(), Error> {
        let mut visited = vec![false; self.list.len()];
        for start in self.ids() {
            // Stages on the way, each with the number of dependencies that were looked at.
            let mut way: Vec<(StageId, usize)> = Vec::new();
            let mut on_way = HashSet::new();
            if !visited[start] {
                visited[start] = true;
                way.push((start, 0));
                on_way.insert(start);
            }
            while let Some((id, next)) = way.last_mut() {
                let Some((dep, _)) = self.list[*id].deps.get(*next) else {
                    on_way.remove(id);
                    way.pop();
                    continue;
                };
                *next += 1;
                if on_way.contains(dep) {
                    return Err(self.circle(start, &way));
                }
                if !visited[*dep] {
                    visited[*dep] = true;
                    on_way.insert(*dep);
                    way.push((*dep, 0));
                }
            }
        }
        Ok(())
    }

    fn circle(&self, start: StageId, way: &[(StageId, usize)]) -> Error {
        let error = Error::from(ConvertError::Circular(self.list[start].shown_name.clone()));
        way.iter().fold(error, |error, (id, next)| error.at(&self.list[*id].deps[next - 1].1))
    }
}
