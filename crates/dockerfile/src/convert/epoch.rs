//! `SOURCE_DATE_EPOCH`: a number of seconds, or the name of a source whose time is taken.

use super::Converter;
use super::copy_remote::{http_filename, http_source, is_http};
use super::error::ConvertError;
use super::resolver::MainContext;
use super::stages::{SCRATCH, UsedPaths};
use crate::error::Error;
use crate::git_ref;
use crate::instruction::{Add, ArgDefinition, Instruction, Stage};
use crate::shell::Env;
use kiln_llb::{Constraints, EnvList, GitSource, Graph, MarshalOptions, Op, SourceOp, State};
use kiln_oci::Timestamp;

const NAME: &str = "SOURCE_DATE_EPOCH";

impl Converter<'_> {
    /// Finds the time, and puts the number in the place of a name.
    pub(super) async fn resolve_epoch(&mut self, stages: &[Stage]) -> Result<(), Error> {
        let given = self.build_args.get(NAME).map(String::as_str);
        let default = Env::get(&self.global_args, NAME).filter(|value| !value.is_empty());
        let Some(value) = given.or(default).map(str::to_owned) else { return Ok(()) };
        self.epoch = self.epoch_of(&value, stages).await?;
        let number = self.epoch.map(|epoch| epoch.unix_seconds().to_string());
        if self.build_args.contains_key(NAME) {
            match &number {
                Some(number) => self.build_args.insert(NAME.to_owned(), number.clone()),
                None => self.build_args.remove(NAME),
            };
        }
        if Env::get(&self.global_args, NAME).is_some() {
            match number {
                Some(number) => self.global_args.set(NAME, number),
                None => self.global_args.remove(NAME),
            }
        }
        Ok(())
    }

    async fn epoch_of(&mut self, value: &str, stages: &[Stage]) -> Result<Option<Timestamp>, Error> {
        if value.is_empty() {
            return Ok(None);
        }
        if let Ok(seconds) = value.parse::<i64>() {
            return Timestamp::from_unix(seconds)
                .map(Some)
                .ok_or_else(|| ConvertError::Epoch(value.to_owned()).into());
        }
        if value == "context" {
            return match self.resolver.main_context().await.map_err(Error::resolve)? {
                MainContext::Local { .. } => Ok(None),
                MainContext::State(state) => {
                    self.time_of(&state, "[internal] resolve main build context metadata").await
                }
            };
        }
        if let Some(context) = self.find_any_context(value, None)? {
            let loaded = self.load_context(&context, &UsedPaths::default()).await?;
            let (state, _) = self.take_loaded(loaded);
            let log_name = format!("[internal] resolve SOURCE_DATE_EPOCH named context {value}");
            return self.time_of(&state, &log_name).await;
        }
        let Some(stage) = stages.iter().find(|stage| stage.name.eq_ignore_ascii_case(value)) else {
            return Err(ConvertError::Epoch(value.to_owned()).into());
        };
        let state = self.stage_source(stage).map_err(|error| error.at(&stage.location))?;
        let log_name = format!("[internal] resolve SOURCE_DATE_EPOCH source stage {}", stage.name);
        self.time_of(&state, &log_name).await
    }

    /// The time of a state that is a single source; others have none.
    async fn time_of(&self, state: &State, log_name: &str) -> Result<Option<Timestamp>, Error> {
        let Some(source) = single_source(state, &MarshalOptions::new(self.platforms.target.clone(), ""))?
        else {
            return Ok(None);
        };
        self.resolver.source_time(&source.identifier, &source.attrs, log_name).await.map_err(Error::resolve)
    }

    /// The source of a stage that consists of nothing but one remote `ADD`.
    fn stage_source(&self, stage: &Stage) -> Result<State, Error> {
        let mut env = self.global_args.clone();
        env.remove(NAME);
        if self.lexer.expand(&stage.base_name, &env)? != SCRATCH {
            return Err(ConvertError::EpochBase.into());
        }
        let mut source = None;
        for command in &stage.commands {
            match &command.instruction {
                Instruction::Arg(args) => self.apply_args(args, &mut env)?,
                Instruction::Add(_) if source.is_some() => return Err(ConvertError::EpochAdds.into()),
                Instruction::Add(add) => source = Some(self.add_source(add, &env)?),
                _ => return Err(ConvertError::EpochInstruction(command.keyword.clone()).into()),
            }
        }
        source.ok_or_else(|| ConvertError::EpochAdds.into())
    }

    fn apply_args(&self, args: &[ArgDefinition], env: &mut EnvList) -> Result<(), Error> {
        for arg in args {
            let value = match (self.build_args.get(&arg.key), &arg.value) {
                (Some(given), _) => given.clone(),
                (None, Some(default)) => self.lexer.expand(default, env)?,
                (None, None) => continue,
            };
            env.set(&arg.key, value);
        }
        Ok(())
    }

    fn add_source(&self, add: &Add, env: &EnvList) -> Result<State, Error> {
        let ([path], true) = (add.sources.paths.as_slice(), add.sources.inline.is_empty()) else {
            return Err(ConvertError::EpochSources.into());
        };
        let path = self.lexer.expand(path, env)?;
        let checksum = self.lexer.expand(&add.checksum, env)?;
        if is_http(&path) {
            let source = http_source(&http_filename(&path), &checksum)?;
            return Ok(State::http(&path, source, Constraints::new()));
        }
        let git = match git_ref::parse(&path)? {
            Some(git) if !git.indistinguishable_from_local => git,
            _ => return Err(ConvertError::EpochSource.into()),
        };
        let source = GitSource {
            keep_git_dir: add.keep_git_dir == Some(true) || git.keep_git_dir == Some(true),
            checksum: if checksum.is_empty() { git.checksum.clone() } else { checksum },
            mtime: String::new(),
            fetch_by_commit: false,
            ..git.source()
        };
        Ok(State::git(&git.remote, source, Constraints::new()))
    }
}

/// The only source of a state, if there is exactly one.
fn single_source(state: &State, options: &MarshalOptions) -> Result<Option<SourceOp>, Error> {
    if state.is_scratch() {
        return Ok(None);
    }
    let definition = match state.marshal(options) {
        Ok(definition) => definition,
        // A local context has no source yet, and no time.
        Err(kiln_llb::Error::LateOutput(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let graph = Graph::load(&definition)?;
    let mut sources = graph.vertices().filter_map(|vertex| match &vertex.op {
        Op::Source(source) => Some(source.clone()),
        _ => None,
    });
    Ok(match (sources.next(), sources.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    })
}
