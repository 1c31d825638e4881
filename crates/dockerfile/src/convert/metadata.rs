//! Instructions that change the config of the image, and what later steps start from.

use super::Converter;
use super::dispatch::Current;
use super::error::ConvertError;
use super::expand::NON_ENV_ARGS;
use super::history::{Layer, commit};
use super::image::set_env;
use super::names::{shown_code, step_name};
use super::stages::{Once, StageId};
use crate::error::Error;
use crate::instruction::{ArgDefinition, CommandLine, KeyValue};
use crate::limits::{VARIABLES_BYTES_MAX, VARIABLES_MAX};
use crate::lint::{Rule, check_secret_key};
use crate::outline::ArgInfo;
use crate::path::{is_absolute, normalize_workdir, to_slash};
use crate::shell::Env;
use crate::signal::is_signal;
use crate::values::{format_duration, quote, quote_list};
use kiln_llb::{Constraints, FileActions, MkdirInfo, Owner, State};
use kiln_oci::{HealthcheckConfig, Image};

impl Converter<'_> {
    /// Adds an entry without a layer.
    fn commit(&mut self, id: StageId, message: &str) {
        commit(&mut self.stages[id].image, message, Layer::None, self.epoch);
    }

    pub(super) fn env(&mut self, current: Current<'_>, pairs: &[KeyValue]) -> Result<(), Error> {
        let stage = &mut self.stages[current.id];
        let mut message = "ENV".to_owned();
        for pair in pairs {
            check_legacy(current, pair);
            check_secret_key("ENV", &pair.key, &current.command.command.location, current.lint);
            message.push_str(&format!(" {pair}"));
            set_env(&mut stage.image.config.env, &pair.key, &pair.value);
        }
        stage.state = stage.state.with(|settings| {
            pairs.iter().for_each(|pair| settings.env.set(&pair.key, &pair.value));
        });
        check_variables(&stage.state)?;
        self.commit(current.id, &message);
        Ok(())
    }

    pub(super) fn label(&mut self, current: Current<'_>, pairs: &[KeyValue]) -> Result<(), Error> {
        let stage = &mut self.stages[current.id];
        let mut message = "LABEL".to_owned();
        for pair in pairs {
            check_legacy(current, pair);
            stage.image.config.labels.insert(pair.key.clone(), pair.value.clone());
            message.push_str(&format!(" {pair}"));
        }
        self.commit(current.id, &message);
        Ok(())
    }

    pub(super) fn arg(&mut self, current: Current<'_>, definitions: &[ArgDefinition]) -> Result<(), Error> {
        let command = &current.command.command;
        let mut shown = Vec::with_capacity(definitions.len());
        for definition in definitions {
            let key = &definition.key;
            check_secret_key("ARG", key, &command.location, current.lint);
            let given = self.build_args.get(key);
            let global = Env::get(&self.global_args, key);
            // One without a value of its own is that of the whole file.
            let inherited = given.is_none() && definition.value.is_none() && global.is_some();
            let value = match (given, &definition.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    Some(self.expander(current.id, command, current.lint).word(default)?)
                }
                (None, None) => global.map(str::to_owned),
            };
            let stage = &mut self.stages[current.id];
            let definition = ArgDefinition { value, ..definition.clone() };
            if let Some(value) = &definition.value
                && !NON_ENV_ARGS.contains(&key.as_str())
            {
                stage.state = stage.state.add_env(key, value);
            }
            if !inherited {
                let mut info = ArgInfo::new(&definition, &command.location);
                info.value = definition.value.clone().unwrap_or_default();
                stage.capture.args.insert(key.clone(), info);
            }
            stage.capture.used.insert(key.clone());
            shown.push(match &definition.value {
                Some(value) => format!("{key}={value}"),
                None => key.clone(),
            });
            stage.build_args.push(definition);
        }
        check_variables(&self.stages[current.id].state)?;
        self.commit(current.id, &format!("ARG {}", shown.join(" ")));
        Ok(())
    }

    pub(super) fn cmd(&mut self, current: Current<'_>, line: &CommandLine) -> Result<(), Error> {
        check_once(&mut self.stages[current.id].cmd, current);
        let args = self.final_args(current, line);
        let stage = &mut self.stages[current.id];
        stage.image.config.cmd.clone_from(&args);
        stage.image.config.args_escaped = true;
        self.commit(current.id, &format!("CMD {}", quote_list(&args)));
        Ok(())
    }

    pub(super) fn entrypoint(&mut self, current: Current<'_>, line: &CommandLine) -> Result<(), Error> {
        check_once(&mut self.stages[current.id].entrypoint, current);
        let args = self.final_args(current, line);
        let stage = &mut self.stages[current.id];
        stage.image.config.entrypoint.clone_from(&args);
        // Default arguments of the base are not meant for another program.
        if stage.cmd.0.is_none() {
            stage.image.config.cmd.clear();
        }
        self.commit(current.id, &format!("ENTRYPOINT {}", quote_list(&args)));
        Ok(())
    }

    /// The words of a command, with the shell in front if there is to be one.
    fn final_args(&self, current: Current<'_>, line: &CommandLine) -> Vec<String> {
        let image = &self.stages[current.id].image;
        if !line.prepend_shell {
            return line.words.clone();
        }
        if image.config.shell.is_empty() {
            let command = &current.command.command;
            let detail = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                command.keyword
            );
            current.lint.report(Rule::JSONArgsRecommended, &command.location, detail);
        }
        with_shell(image, &line.words)
    }

    pub(super) fn healthcheck(
        &mut self,
        current: Current<'_>,
        check: HealthcheckConfig,
    ) -> Result<(), Error> {
        let stage = &mut self.stages[current.id];
        check_once(&mut stage.healthcheck, current);
        let message = format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            check.test.join(" "),
            format_duration(check.interval),
            format_duration(check.timeout),
            format_duration(check.start_period),
            format_duration(check.start_interval),
            check.retries
        );
        stage.image.config.healthcheck = Some(check);
        self.commit(current.id, &message);
        Ok(())
    }

    pub(super) fn maintainer(&mut self, id: StageId, author: &str) -> Result<(), Error> {
        author.clone_into(&mut self.stages[id].image.author);
        self.commit(id, &format!("MAINTAINER {author}"));
        Ok(())
    }

    pub(super) fn shell(&mut self, id: StageId, words: Vec<String>) -> Result<(), Error> {
        let message = format!("SHELL [{}]", words.join(" "));
        self.stages[id].image.config.shell = words;
        self.commit(id, &message);
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, id: StageId, signal: String) -> Result<(), Error> {
        if !is_signal(&signal) {
            return Err(ConvertError::Signal(signal).into());
        }
        let message = format!("STOPSIGNAL {signal}");
        self.stages[id].image.config.stop_signal = signal;
        self.commit(id, &message);
        Ok(())
    }

    pub(super) fn user(&mut self, id: StageId, user: String) -> Result<(), Error> {
        let stage = &mut self.stages[id];
        stage.state = stage.state.user(&user);
        let message = format!("USER {user}");
        stage.image.config.user = user;
        self.commit(id, &message);
        Ok(())
    }

    pub(super) fn volume(&mut self, id: StageId, volumes: &[String]) -> Result<(), Error> {
        if volumes.iter().any(String::is_empty) {
            return Err(ConvertError::EmptyVolume.into());
        }
        let known = &mut self.stages[id].image.config.volumes;
        known.extend(volumes.iter().map(|volume| (volume.clone(), kiln_oci::Empty {})));
        self.commit(id, &format!("VOLUME [{}]", volumes.join(" ")));
        Ok(())
    }

    /// Changes the working directory, without making it.
    pub(super) fn set_workdir(&mut self, id: StageId, path: &str) -> Result<String, Error> {
        let os = self.stage_os(id);
        let stage = &mut self.stages[id];
        let dir = normalize_workdir(&stage.image.config.working_dir, path, &os).map_err(|error| {
            let error = Error::from(error).within("removing drive letter");
            error.within("normalizing working directory").within("normalizing workdir")
        })?;
        stage.image.config.working_dir.clone_from(&dir);
        let dir = to_slash(&dir, &os);
        stage.state = stage.state.dir(&dir);
        Ok(dir)
    }

    pub(super) fn workdir(&mut self, current: Current<'_>, path: &str) -> Result<(), Error> {
        let id = current.id;
        let command = &current.command.command;
        let os = self.stage_os(id);
        if !self.stages[id].workdir_set && !is_absolute(path, &os) {
            let detail = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                quote(path)
            );
            current.lint.report(Rule::WorkdirRelativePath, &command.location, detail);
        }
        self.stages[id].workdir_set = true;
        let dir = self.set_workdir(id, path)?;
        let message = format!("WORKDIR {dir}");
        if dir == "/" {
            self.commit(id, &message);
            return Ok(());
        }
        let multi_platform = self.options.multi_platform;
        let stage = &mut self.stages[id];
        let user = &stage.image.config.user;
        let info = MkdirInfo {
            make_parents: true,
            owner: (!user.is_empty()).then(|| Owner::parse(user)),
            created_time: self.epoch.map(|epoch| epoch.unix_nanos() as i64),
        };
        let state = stage.state.clone();
        let env = &state.settings().env;
        let platform = stage.platform.clone();
        let name = shown_code(&self.lexer, &command.code, env);
        let name = step_name(stage, &name, multi_platform, platform.as_ref(), env);
        let constraints = Constraints { platform, ..Constraints::new().custom_name(name) };
        let constraints = self.at(constraints, &command.location);
        let stage = &mut self.stages[id];
        stage.state = state.file(FileActions::new().mkdir(&dir, 0o755, info), constraints)?;
        commit(&mut stage.image, &message, Layer::Plain, self.epoch);
        Ok(())
    }

    /// The operating system of a stage.
    pub(super) fn stage_os(&self, id: StageId) -> String {
        self.stages[id].platform.as_ref().map(|platform| platform.os.clone()).unwrap_or_default()
    }
}

/// A command as one text for the shell of the image.
pub(super) fn with_shell(image: &Image, words: &[String]) -> Vec<String> {
    let mut args = match image.config.shell.as_slice() {
        [] if image.os == "windows" => vec!["cmd".to_owned(), "/S".to_owned(), "/C".to_owned()],
        [] => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        shell => shell.to_vec(),
    };
    args.push(words.join(" "));
    args
}

/// Every step carries all variables, so there is a limit to them.
fn check_variables(state: &State) -> Result<(), ConvertError> {
    let (mut count, mut bytes) = (0, 0);
    for (key, value) in state.settings().env.iter() {
        count += 1;
        bytes += key.len() + value.len();
    }
    if count > VARIABLES_MAX || bytes > VARIABLES_BYTES_MAX { Err(ConvertError::Variables) } else { Ok(()) }
}

fn check_legacy(current: Current<'_>, pair: &KeyValue) {
    if pair.legacy {
        let command = &current.command.command;
        let keyword = &command.keyword;
        let detail = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        current.lint.report(Rule::LegacyKeyValueFormat, &command.location, detail);
    }
}

/// Only the last instruction of its kind counts; the one before it is what is reported.
fn check_once(last: &mut Once, current: Current<'_>) {
    let command = &current.command.command;
    if let Some(before) = last.0.replace(command.location.clone()) {
        let detail = format!(
            "Multiple {} instructions should not be used in the same stage because only the last one will be used",
            command.keyword
        );
        current.lint.report(Rule::MultipleInstructionsDisallowed, &before, detail);
    }
}
