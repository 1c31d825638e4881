//! From the stages of the Dockerfile to those of the conversion: variables of `FROM`, the target, and who
//! takes files from whom.

use super::Converter;
use super::args::{check_declared, expand_platform};
use super::error::ConvertError;
use super::stages::{SCRATCH, StageCommand, StageId, StageState};
use crate::error::Error;
use crate::instruction::{Command, Instruction, Stage, mount_from};
use crate::location::Range;
use crate::outline::Capture;
use crate::shell::{NoEnv, Uses};
use crate::suggest::Case;

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

    /// Gives a stage what it inherits from the stage that it is based on. The last heir gets what is
    /// large without a copy.
    pub(super) fn inherit(&mut self, id: StageId, is_last_heir: bool) {
        let Some(base) = self.stages[id].base else { return };
        let base = &mut self.stages[base];
        let (state, platform, workdir_set) = (base.state.clone(), base.platform.clone(), base.workdir_set);
        let (base_image, paths) = (base.base_image.clone(), base.paths.clone());
        let (mut image, build_args) = if is_last_heir {
            (std::mem::take(&mut base.image), std::mem::take(&mut base.build_args))
        } else {
            (base.image.clone(), base.build_args.clone())
        };
        if is_last_heir {
            base.retire();
        }
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
fn is_step(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Add(_) | Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_)
    )
}
