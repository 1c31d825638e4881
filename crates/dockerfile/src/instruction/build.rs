//! Each keyword's arguments and flags to an instruction.

use super::copy::{build_add, build_copy};
use super::flags::Flags;
use super::run::{command_line, handle_json, run};
use super::{ArgDefinition, Instruction, InstructionError, KeyValue, doc_comment, healthcheck};
use crate::error::Error;
use crate::limits::ARG_NAMES_MAX;
use crate::lint::{Linter, Rule, check_description};
use crate::parser::{Arguments, Statement};

/// The instruction `keyword` (in lower case) of a statement.
pub(super) fn instruction(keyword: &str, statement: &Statement, lint: &Linter) -> Result<Instruction, Error> {
    let Statement { flags, .. } = statement;
    let (words, json) = match &statement.arguments {
        Arguments::Words { words, json } => (words.as_slice(), *json),
        Arguments::Pairs(_) | Arguments::Nested(_) => (&[][..], false),
    };
    Ok(match keyword {
        "add" => Instruction::Add(build_add(statement, words)?),
        "arg" => Instruction::Arg(args(statement, words, lint)?),
        "cmd" => {
            Flags::none(flags)?;
            Instruction::Cmd(command_line(statement, words, json))
        }
        "copy" => Instruction::Copy(build_copy(statement, words)?),
        "entrypoint" => {
            Flags::none(flags)?;
            Instruction::Entrypoint(command_line(statement, words, json))
        }
        "env" => Instruction::Env(pairs(statement, "ENV")?),
        "expose" => {
            at_least_one(words, "EXPOSE")?;
            Flags::none(flags)?;
            let mut ports = words.to_vec();
            ports.sort();
            Instruction::Expose(ports)
        }
        "healthcheck" => Instruction::Healthcheck(healthcheck::build(flags, words, json)?),
        "label" => Instruction::Label(pairs(statement, "LABEL")?),
        "maintainer" => {
            let detail = "Maintainer instruction is deprecated in favor of using label".to_owned();
            lint.report(Rule::MaintainerDeprecated, &statement.location, detail);
            Instruction::Maintainer(the_word(flags, words, "MAINTAINER")?)
        }
        "onbuild" => Instruction::Onbuild(onbuild(statement)?),
        "run" => Instruction::Run(run(statement, words, json)?),
        "shell" => {
            Flags::none(flags)?;
            let words = handle_json(words, json);
            at_least_one(&words, "SHELL")?;
            if !json {
                return Err(InstructionError::NotJson("SHELL").into());
            }
            Instruction::Shell(words)
        }
        // Flags of this one have always been ignored.
        "stopsignal" => Instruction::StopSignal(exactly_one(words, "STOPSIGNAL")?),
        "user" => Instruction::User(the_word(flags, words, "USER")?),
        "volume" => Instruction::Volume(volumes(flags, words)?),
        "workdir" => Instruction::Workdir(the_word(flags, words, "WORKDIR")?),
        _ => return Err(InstructionError::Unknown(statement.keyword.clone()).into()),
    })
}

fn at_least_one(words: &[String], keyword: &'static str) -> Result<(), InstructionError> {
    if words.is_empty() { Err(InstructionError::AtLeastOneArgument(keyword)) } else { Ok(()) }
}

fn exactly_one(words: &[String], keyword: &'static str) -> Result<String, InstructionError> {
    match words {
        [word] => Ok(word.clone()),
        _ => Err(InstructionError::ExactlyOneArgument(keyword)),
    }
}

/// The one word of an instruction without flags.
fn the_word(flags: &[String], words: &[String], keyword: &'static str) -> Result<String, Error> {
    let word = exactly_one(words, keyword)?;
    Flags::none(flags)?;
    Ok(word)
}

fn pairs(statement: &Statement, keyword: &'static str) -> Result<Vec<KeyValue>, Error> {
    Flags::none(&statement.flags)?;
    match &statement.arguments {
        Arguments::Pairs(pairs) if pairs.iter().any(|pair| pair.key.is_empty()) => {
            Err(InstructionError::BlankName(keyword).into())
        }
        Arguments::Pairs(pairs) if !pairs.is_empty() => Ok(pairs.clone()),
        _ => Err(InstructionError::AtLeastOneArgument(keyword).into()),
    }
}

/// Flags are not looked at, as in BuildKit.
fn args(statement: &Statement, words: &[String], lint: &Linter) -> Result<Vec<ArgDefinition>, Error> {
    at_least_one(words, "ARG")?;
    if words.len() > ARG_NAMES_MAX {
        return Err(InstructionError::TooManyNames(ARG_NAMES_MAX).into());
    }
    let mut args = Vec::with_capacity(words.len());
    for word in words {
        let (key, value) = match word.split_once('=') {
            Some(("", _)) => return Err(InstructionError::BlankName("ARG").into()),
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let doc_comment = doc_comment(&statement.comments, key);
        args.push(ArgDefinition { key: key.to_owned(), value, doc_comment });
    }
    let keys: Vec<&str> = args.iter().map(|arg| arg.key.as_str()).collect();
    check_description("ARG", &keys, &statement.comments, &statement.location, lint);
    Ok(args)
}

fn volumes(flags: &[String], words: &[String]) -> Result<Vec<String>, Error> {
    at_least_one(words, "VOLUME")?;
    Flags::none(flags)?;
    let volumes: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) {
        return Err(InstructionError::EmptyVolume.into());
    }
    Ok(volumes)
}

/// The text of the trigger: the line without its `ONBUILD`, then the heredocs put together again.
fn onbuild(statement: &Statement) -> Result<String, Error> {
    let Arguments::Nested(trigger) = &statement.arguments else {
        return Err(InstructionError::AtLeastOneArgument("ONBUILD").into());
    };
    Flags::none(&statement.flags)?;
    match trigger.keyword.trim().to_uppercase().as_str() {
        "ONBUILD" => return Err(InstructionError::OnbuildChain.into()),
        keyword @ ("MAINTAINER" | "FROM") => {
            return Err(InstructionError::OnbuildTrigger(keyword.to_owned()).into());
        }
        _ => {}
    }
    let line = statement.original.trim_start();
    let mut text = line[statement.keyword.len()..].trim_start().to_owned();
    for heredoc in &statement.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}
