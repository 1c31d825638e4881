//! Goes through the instructions of all stages that are needed, in the order of the file.

use super::Converter;
use super::expand::NON_ENV_ARGS;
use super::image::{default_path, split_entry};
use super::resolver::MainContext;
use super::stages::{StageCommand, StageId};
use crate::error::Error;
use crate::instruction::Instruction;
use crate::lint::Linter;
use crate::shell::Env;
use crate::values::parse_bool;
use std::collections::{HashMap, HashSet};

/// One instruction while it is converted.
#[derive(Clone, Copy)]
pub(super) struct Current<'c> {
    pub(super) id: StageId,
    pub(super) command: &'c StageCommand,
    /// With the options that its comments add.
    pub(super) lint: &'c Linter,
}

impl Converter<'_> {
    /// Asks for the main context, which is only now known to be of use.
    pub(super) async fn load_main_context(&mut self) -> Result<MainContext, Error> {
        let context = self.resolver.main_context().await.map_err(Error::resolve)?;
        if let MainContext::Local { ignore, .. } = &context {
            self.ignore.clone_from(ignore);
        }
        Ok(context)
    }

    pub(super) fn dispatch_stages(
        &mut self,
        reachable: &HashSet<StageId>,
        target: StageId,
    ) -> Result<(), Error> {
        let wanted =
            |id: &StageId| self.options.all_stages || reachable.contains(id) && !self.stages[*id].dispatched;
        let wanted: Vec<StageId> = self.stages.ids().filter(wanted).collect();
        // Long chains of stages would be expensive if each kept what it shares with the next one.
        let mut heirs: HashMap<StageId, usize> = HashMap::from([(target, 1)]);
        for base in wanted.iter().filter_map(|id| self.stages[*id].base) {
            *heirs.entry(base).or_default() += 1;
        }
        for id in wanted {
            let left = self.stages[id].base.and_then(|base| heirs.get_mut(&base));
            let is_last_heir = left.is_some_and(|left| {
                *left -= 1;
                *left == 0
            });
            self.inherit(id, is_last_heir);
            self.dispatch_stage(id)?;
            if heirs.get(&id).is_none_or(|heirs| *heirs == 0) {
                self.stages[id].retire();
            }
        }
        // The whole target is the result.
        self.stages[target].paths.add("/".to_owned());
        Ok(())
    }

    fn dispatch_stage(&mut self, id: StageId) -> Result<(), Error> {
        self.begin_stage(id)?;
        for command in std::mem::take(&mut self.stages[id].commands) {
            let lint = self.lint.with_comments(&command.command.comments);
            self.stages[id].step_is_onbuild = command.is_onbuild;
            self.dispatch(Current { id, command: &command, lint: &lint })
                .map_err(|error| error.at(&command.command.location))?;
            self.stages[id].commands.push(command);
        }
        let [scan_context, scan_stage] = NON_ENV_ARGS.map(|name| self.scans(id, name));
        let stage = &mut self.stages[id];
        stage.scan_context = scan_context;
        stage.scan_stage = scan_stage;
        Ok(())
    }

    /// What holds before the first instruction, from the config of the base.
    fn begin_stage(&mut self, id: StageId) -> Result<(), Error> {
        let (hostname, network) = (&self.options.hostname, self.options.network);
        let stage = &mut self.stages[id];
        stage.dispatched = true;
        let platform = stage.platform.get_or_insert_with(|| self.platforms.target.clone()).clone();
        let config = &mut stage.image.config;
        if !config.env.iter().any(|entry| split_entry(entry).0 == "PATH") {
            config.env.extend(default_path(&platform.os));
        }
        for entry in &config.env {
            let (key, value) = split_entry(entry);
            stage.state = stage.state.add_env(key, value);
        }
        if !hostname.is_empty() {
            stage.state = stage.state.with(|settings| settings.hostname.clone_from(hostname));
        }
        let user = config.user.clone();
        if !config.working_dir.is_empty() {
            let dir = config.working_dir.clone();
            let location = stage.stage.location.clone();
            self.set_workdir(id, &dir).map_err(|error| error.at(&location))?;
        }
        let stage = &mut self.stages[id];
        if !user.is_empty() {
            stage.state = stage.state.user(user);
        }
        stage.state = stage.state.with(|settings| settings.network = network);
        Ok(())
    }

    fn dispatch(&mut self, current: Current<'_>) -> Result<(), Error> {
        let command = &current.command.command;
        let expander = self.expander(current.id, command, current.lint);
        match expander.instruction()? {
            Instruction::Add(add) => self.add(current, add),
            Instruction::Arg(args) => self.arg(current, &args),
            Instruction::Cmd(line) => self.cmd(current, &line),
            Instruction::Copy(copy) => self.copy(current, copy),
            Instruction::Entrypoint(line) => self.entrypoint(current, &line),
            Instruction::Env(pairs) => self.env(current, &pairs),
            Instruction::Expose(ports) => self.expose(current, &ports),
            Instruction::Healthcheck(check) => self.healthcheck(current, check),
            Instruction::Label(pairs) => self.label(current, &pairs),
            Instruction::Maintainer(author) => self.maintainer(current.id, &author),
            Instruction::Onbuild(trigger) => {
                self.stages[current.id].image.config.on_build.push(trigger);
                Ok(())
            }
            Instruction::Run(run) => {
                let mounts = expander.mounts(&run.mounts)?;
                self.run_step(current, &run, &mounts)
            }
            Instruction::Shell(words) => self.shell(current.id, words),
            Instruction::StopSignal(signal) => self.stop_signal(current.id, signal),
            Instruction::User(user) => self.user(current.id, user),
            Instruction::Volume(volumes) => self.volume(current.id, &volumes),
            Instruction::Workdir(path) => self.workdir(current, &path),
        }
    }

    /// Whether an argument asks for a bill of materials of a stage: by a boolean or by its name.
    fn scans(&self, id: StageId, argument: &str) -> bool {
        let stage = &self.stages[id];
        let enabled = |value: &str| {
            parse_bool(value).unwrap_or_else(|| value.split(',').any(|name| name == stage.shown_name))
        };
        let of_stage = stage.build_args.iter().rev().find(|arg| arg.key == argument && arg.value.is_some());
        match of_stage.and_then(|arg| arg.value.as_deref()).or(Env::get(&self.global_args, argument)) {
            Some(value) => enabled(value),
            None => false,
        }
    }
}
