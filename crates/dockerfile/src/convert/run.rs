//! `RUN`.

use super::Converter;
use super::base::DESCRIPTION_COMMAND;
use super::dispatch::Current;
use super::error::ConvertError;
use super::history::{Layer, commit, run_command};
use super::metadata::with_shell;
use super::names::{heredoc_summary, shown_code, step_name};
use crate::error::Error;
use crate::instruction::{Device as RunDevice, Mount, MountKind, Network, Run, Security};
use crate::parser::{Heredoc, chomped};
use crate::path::join;
use crate::shell::Lexer;
use kiln_llb::{
    Constraints, Device, EnvList, FileActions, MkfileInfo, MountInfo, MountKind as LlbMountKind, NetMode,
    RunInfo, SecurityMode, State,
};

/// Where a script given as a heredoc is put.
const SCRIPT_DIR: &str = "/dev/pipes/";
const SCRIPT_MODE: u32 = 0o755;

/// What stands for the value of a secret in the name of a step.
const SECRET_MASK: &str = "****";

impl Converter<'_> {
    pub(super) fn run_step(
        &mut self,
        current: Current<'_>,
        run: &Run,
        mounts: &[Mount],
    ) -> Result<(), Error> {
        let id = current.id;
        let command = &current.command.command;
        let stage = &self.stages[id];
        // A step may read whatever it likes.
        stage.paths.add("/".to_owned());
        let state = stage.state.clone();
        let env = &state.settings().env;
        let mut info = RunInfo { proxy_env: self.proxy.clone(), ..RunInfo::default() };
        let mut code = command.code.clone();
        let words = match run.command.files.as_slice() {
            [] => run.command.words.clone(),
            files => self.heredoc_words(current, run, files, &mut code, &mut info)?,
        };
        let stage = &self.stages[id];
        info.args = if run.command.prepend_shell { with_shell(&stage.image, &words) } else { words };
        let args = info.args.clone();
        self.add_mounts(current, mounts, &mut info)?;
        if self.options.shm_size > 0 {
            let kind = LlbMountKind::Tmpfs { size: self.options.shm_size };
            info.mounts.push(MountInfo { kind, ..MountInfo::bind("/dev/shm", State::scratch()) });
        }
        info.devices = self.options.devices.clone();
        info.devices.extend(run.devices.iter().map(device));
        let step_env = masked(env, mounts);
        let shown_lexer = Lexer { raw_quotes: true, keep_unset: true, ..self.lexer };
        let name = shown_code(&shown_lexer, &code, &step_env);
        let stage = &mut self.stages[id];
        let platform = state.settings().platform.clone();
        let name = step_name(stage, &name, self.options.multi_platform, platform.as_ref(), env);
        let mut constraints = Constraints::new()
            .description(DESCRIPTION_COMMAND, command.code.clone())
            .custom_name(name)
            .ignore_cache(stage.ignore_cache);
        if let Some(limits) = &self.options.linux_resources {
            constraints = constraints.linux_resources(limits.clone());
        }
        let constraints = self.at(constraints, &command.location);
        let result = self.settings_of(&state, run).run(info, constraints)?;
        let stage = &mut self.stages[id];
        // What is only for this step is no part of what the next one starts from.
        stage.state = state.with_output(result.root().output().cloned());
        let message = format!("RUN {}", run_command(&args, &stage.build_args, env));
        commit(&mut stage.image, &message, Layer::Built, self.epoch);
        Ok(())
    }

    /// The state with what holds for a single step.
    fn settings_of(&self, state: &State, run: &Run) -> State {
        state.with(|settings| {
            match run.network {
                Network::Default => {}
                Network::None => settings.network = NetMode::None,
                Network::Host => settings.network = NetMode::Host,
            }
            settings.security = match run.security {
                Security::Sandbox => SecurityMode::Sandbox,
                Security::Insecure => SecurityMode::Insecure,
            };
            settings.ulimits.extend(self.options.ulimits.iter().cloned());
            settings.extra_hosts.extend(self.options.extra_hosts.iter().cloned());
            if !self.options.cgroup_parent.is_empty() {
                settings.cgroup_parent.clone_from(&self.options.cgroup_parent);
            }
        })
    }

    /// The words of a command with heredocs. A single one is a script: with an interpreter of its own it
    /// becomes a file, else the text for the shell. Several are put together again for the shell.
    fn heredoc_words(
        &self,
        current: Current<'_>,
        run: &Run,
        files: &[Heredoc],
        code: &mut String,
        info: &mut RunInfo,
    ) -> Result<Vec<String>, Error> {
        let ([line], true) = (run.command.words.as_slice(), run.command.prepend_shell) else {
            return Err(ConvertError::RunHeredoc(run.command.words.join(" ")).into());
        };
        if Heredoc::of_word(line).is_none() {
            let mut text = line.clone();
            for file in files {
                text.push('\n');
                text.push_str(&file.content);
                text.push_str(&file.name);
            }
            return Ok(vec![text]);
        }
        let file = &files[0];
        code.push_str(&format!(" ({})", heredoc_summary(&file.content)));
        let script = if file.chomp { chomped(&file.content) } else { file.content.clone() };
        let stage = &self.stages[current.id];
        if stage.image.os == "windows" || !script.starts_with("#!") {
            return Ok(vec![script]);
        }
        let mut constraints = Constraints::new().custom_name("[internal] preparing inline document");
        constraints.platform.clone_from(&stage.platform);
        let actions =
            FileActions::new().mkfile(&file.name, SCRIPT_MODE, script.into_bytes(), MkfileInfo::default());
        let source = State::scratch().file(actions, constraints)?;
        info.mounts.push(MountInfo {
            selector: "/".to_owned(),
            readonly: true,
            ..MountInfo::bind(SCRIPT_DIR, source)
        });
        Ok(vec![join(SCRIPT_DIR, &file.name)])
    }
}

fn device(device: &RunDevice) -> Device {
    Device { name: device.name.clone(), optional: !device.required }
}

/// Variables that come from secrets show as such in the name of the step.
fn masked(env: &EnvList, mounts: &[Mount]) -> EnvList {
    let secrets = mounts
        .iter()
        .filter(|mount| mount.kind == MountKind::Secret)
        .filter_map(|mount| mount.env.as_deref());
    let mut masked = env.clone();
    for name in secrets {
        masked.set(name, SECRET_MASK);
    }
    masked
}
