//! Triggers: instructions that a base image, or the stage that a stage is based on, left for later.

use super::Converter;
use super::error::ConvertError;
use super::stages::{StageCommand, StageId};
use crate::error::Error;
use crate::instruction::{Instruction, build_command};
use crate::limits::ONBUILD_TRIGGERS_MAX;
use crate::lint::Linter;
use crate::location::{bounds, lines};
use crate::parser::parse_trigger;
use std::collections::HashSet;

impl Converter<'_> {
    /// Puts triggers in front of the instructions of the stages that inherit them. Tells whether they
    /// take files from stages, which then have to be looked up.
    pub(super) fn take_triggers(&mut self, reachable: &HashSet<StageId>) -> Result<bool, Error> {
        let mut new_sources = false;
        for id in self.stages.ids() {
            if !reachable.contains(&id) {
                continue;
            }
            self.inherit(id, false);
            let mut triggers = std::mem::take(&mut self.stages[id].image.config.on_build);
            if let Some(base) = self.stages[id].base
                && !std::mem::replace(&mut self.stages[id].triggers_done, true)
            {
                triggers.extend(self.stages[base].commands.iter().filter_map(|command| {
                    match &command.command.instruction {
                        Instruction::Onbuild(trigger) => Some(trigger.clone()),
                        _ => None,
                    }
                }));
            }
            if triggers.len() > ONBUILD_TRIGGERS_MAX {
                return Err(ConvertError::OnbuildTriggers(ONBUILD_TRIGGERS_MAX).into());
            }
            let mut commands = Vec::with_capacity(triggers.len());
            for trigger in &triggers {
                let location = self.stages[id].stage.location.clone();
                let command = self.trigger(id, trigger).map_err(|error| error.only_at(&location))?;
                new_sources |= !command.sources.is_empty();
                commands.push(command);
            }
            let stage = &mut self.stages[id];
            stage.step_count += commands.len();
            stage.commands.splice(0..0, commands);
        }
        Ok(new_sources)
    }

    /// Understands one trigger, as if it stood where the stage begins.
    fn trigger(&mut self, id: StageId, text: &str) -> Result<StageCommand, Error> {
        let mut statements = parse_trigger(text)?;
        let (Some(mut statement), true) = (statements.pop(), statements.is_empty()) else {
            return Err(ConvertError::OnbuildSingle.into());
        };
        let (start, end) = bounds(&self.stages[id].stage.location).unwrap_or_default();
        statement.location = lines(start, end);
        let command = build_command(&statement, &Linter::off())?;
        self.link_command(id, command, true)
    }
}
