//! The stages of a conversion and how they depend on each other.

use super::Converter;
use super::args::{check_declared, expand_platform};
use super::contexts::NamedContext;
use super::error::ConvertError;
use crate::error::Error;
use crate::instruction::mount_from;
use crate::instruction::{Command, Instruction, Stage};
use crate::location::Range;
use crate::outline::Capture;
use crate::shell::{NoEnv, Uses};
use crate::suggest::Case;
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
    /// A `WORKDIR` was given.
    pub(super) workdir_set: bool,
    pub(super) entrypoint: Once,
    pub(super) cmd: Once,
    pub(super) healthcheck: Once,
}

impl StageState {
    fn new(stage: Stage, capture: Capture) -> Self {
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
            workdir_set: false,
            entrypoint: Once::default(),
            cmd: Once::default(),
            healthcheck: Once::default(),
        }
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
    fn add(&mut self, mut stage: StageState) -> StageId {
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

    fn find(&self, name: &str) -> Option<StageId> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    fn find_index(&self, index: i64) -> Result<StageId, ConvertError> {
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
    fn check_circles(&self) -> Result<(), Error> {
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

impl Converter<'_> {
    /// Takes the stages of the Dockerfile over, with the variables of their `FROM` expanded.
    pub(super) fn add_stages(&mut self, stages: Vec<Stage>) -> Result<(), Error> {
        for (at, mut stage) in stages.into_iter().enumerate() {
            let lint = self.lint.with_comments(&stage.comments);
            let mut uses = Uses::default();
            let base = self.lexer.expand_noting(&stage.base_name, &self.global_args, &mut uses);
            check_declared(&uses, &self.global_args, &self.global_capture, &stage.location, &lint);
            let base = base.map_err(|error| Error::from(error).at(&stage.location))?;
            if base.is_empty() {
                let error = Error::from(ConvertError::BlankBase(stage.base_name));
                return Err(error.at(&stage.location));
            }
            stage.base_name = base;
            let mut used = uses.matched;
            let mut platform = None;
            if !stage.platform.is_empty() {
                let (parsed, uses) =
                    expand_platform(&stage, &self.lexer, &self.global_args, &self.global_capture, &lint)?;
                used.extend(uses.matched);
                platform = Some(parsed);
            }
            let mut state = StageState::new(stage, self.global_capture.clone());
            state.platform = platform;
            if !state.stage.name.is_empty() {
                state.named_context = self.find_context(&state.stage.name, state.platform.as_ref())?;
            }
            let replaced = state.named_context.is_some();
            if state.stage.name.is_empty() {
                state.shown_name = format!("stage-{at}");
            }
            let id = self.stages.add(state);
            let state = &mut self.stages[id];
            if replaced {
                state.base = None;
                continue;
            }
            state.capture.used.extend(used);
            let has_from_step = state.stage.base_name != SCRATCH && state.base.is_none();
            state.step_count = usize::from(has_from_step)
                + state.stage.commands.iter().filter(|command| is_step(&command.instruction)).count();
            state.ignore_cache = self.options.no_cache.applies_to(&state.stage.name);
        }
        Ok(())
    }

    /// The stage to build.
    pub(super) fn find_target(&self) -> Result<StageId, Error> {
        let target = &self.options.target;
        if target.is_empty() {
            return Ok(self.stages.ids().end - 1);
        }
        self.stages.find(target).ok_or_else(|| {
            let error = Error::from(ConvertError::Target(target.clone()));
            error.suggest(target, self.stages.names(), Case::Sensitive)
        })
    }

    /// Finds out which stages take files from which. Images that files are taken from become stages.
    pub(super) fn link_stages(&mut self) -> Result<(), Error> {
        // Images that are added on the way have no instructions.
        for id in self.stages.ids() {
            let commands = std::mem::take(&mut self.stages[id].stage.commands);
            for command in commands {
                let command = self.link_command(id, command, false)?;
                self.stages[id].commands.push(command);
            }
        }
        self.stages.check_circles()?;
        if self.stages.ids().len() == 1 {
            self.stages[0].shown_name = String::new();
        }
        Ok(())
    }

    /// Finds the stages that an instruction of stage `id` takes files from.
    pub(super) fn link_command(
        &mut self,
        id: StageId,
        command: Command,
        is_onbuild: bool,
    ) -> Result<StageCommand, Error> {
        let sources = match &command.instruction {
            Instruction::Copy(copy) if !copy.from.is_empty() => {
                vec![self.copy_source(&copy.from.clone(), &command.location)?]
            }
            Instruction::Run(run) => {
                let from = |mount: &String| match mount_from(mount) {
                    from if from.is_empty() => SCRATCH.to_owned(),
                    from => from,
                };
                let names: Vec<String> = run.mounts.iter().map(from).collect();
                names.iter().map(|name| self.find_or_add(name, &[])).collect()
            }
            _ => Vec::new(),
        };
        for source in &sources {
            self.stages[id].depend_on(*source, &command.location);
        }
        Ok(StageCommand { command, sources, is_onbuild })
    }

    fn copy_source(&mut self, from: &str, location: &[Range]) -> Result<StageId, Error> {
        if self.lexer.expand(from, &NoEnv)? != from {
            return Err(ConvertError::FromExpansion.into());
        }
        match from.parse::<i64>() {
            Ok(index) => Ok(self.stages.find_index(index)?),
            Err(_) => Ok(self.find_or_add(from, location)),
        }
    }

    fn find_or_add(&mut self, name: &str, location: &[Range]) -> StageId {
        if let Some(id) = self.stages.find(name) {
            return id;
        }
        let stage = Stage {
            name: String::new(),
            base_name: name.to_owned(),
            platform: String::new(),
            keyword: String::new(),
            doc_comment: String::new(),
            code: String::new(),
            location: location.to_vec(),
            comments: Vec::new(),
            commands: Vec::new(),
        };
        self.stages.add(StageState { unregistered: true, ..StageState::new(stage, Capture::default()) })
    }

    /// Takes over what the stage inherits from the stage that it is based on.
    pub(super) fn inherit(&mut self, id: StageId) {
        let Some(base) = self.stages[id].base else { return };
        let base = &self.stages[base];
        let (state, platform, mut image) = (base.state.clone(), base.platform.clone(), base.image.clone());
        let (base_image, paths) = (base.base_image.clone(), base.paths.clone());
        let (workdir_set, build_args) = (base.workdir_set, base.build_args.clone());
        // Triggers are for those who are based on an image, not for later stages.
        image.config.on_build.clear();
        let stage = &mut self.stages[id];
        stage.state = state;
        stage.platform = platform;
        stage.image = image;
        stage.base_image = base_image;
        stage.paths = paths;
        stage.workdir_set = workdir_set;
        stage.build_args.extend(build_args);
    }
}

/// Whether an instruction is a step with a number.
pub(super) fn is_step(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
    )
}
