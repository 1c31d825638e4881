//! Statements to typed instructions, grouped into stages. Variables are not expanded yet.

mod build;
mod copy;
mod device;
mod error;
mod flags;
mod from;
mod healthcheck;
mod mount;
mod run;

pub use copy::{Add, Copy, InlineFile, Sources};
pub use device::Device;
pub use error::InstructionError;
pub use from::Stage;
pub use mount::{Mount, MountKind, Sharing};
pub(crate) use mount::{mount_from, parse_mount};
pub use run::{CommandLine, Network, Run, Security};

pub use crate::parser::KeyValue;

use crate::error::{Error, ErrorKind};
use crate::lint::Linter;
use crate::location::Range;
use crate::parser::{Dockerfile, Statement};
use crate::suggest::Case;
use kiln_oci::HealthcheckConfig;

/// The keywords, in upper case.
pub const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A Dockerfile with its instructions understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The `ARG`s before the first stage.
    pub global_args: Vec<GlobalArgs>,
    pub stages: Vec<Stage>,
    /// The escape character in force.
    pub escape: char,
}

/// One `ARG` instruction before the first stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalArgs {
    pub args: Vec<ArgDefinition>,
    pub location: Vec<Range>,
}

/// An instruction within a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The keyword as it is written.
    pub keyword: String,
    /// The logical line, without heredocs.
    pub code: String,
    pub location: Vec<Range>,
    /// Comments directly above it.
    pub comments: Vec<String>,
    pub instruction: Instruction,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    Add(Add),
    Arg(Vec<ArgDefinition>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(Vec<KeyValue>),
    Expose(Vec<String>),
    Healthcheck(HealthcheckConfig),
    Label(Vec<KeyValue>),
    Maintainer(String),
    /// The trigger's own text, heredocs included.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// One name of an `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDefinition {
    pub key: String,
    /// The default.
    pub value: Option<String>,
    /// What the comment above says about it.
    pub doc_comment: String,
}

/// What a statement turns out to be.
enum Built {
    Stage(Stage),
    Command(Command),
}

impl Program {
    /// Understands all statements; mistakes of style go to `lint`.
    pub fn build(dockerfile: &Dockerfile, lint: &Linter) -> Result<Self, Error> {
        let mut program = Self { global_args: Vec::new(), stages: Vec::new(), escape: dockerfile.escape };
        for statement in &dockerfile.statements {
            let first_line = statement.location.first().map_or(0, |range| range.start.line);
            match build_statement(statement, lint).map_err(|error| error.on_line(first_line))? {
                Built::Stage(stage) => program.stages.push(stage),
                Built::Command(Command { instruction: Instruction::Arg(args), location, .. })
                    if program.stages.is_empty() =>
                {
                    program.global_args.push(GlobalArgs { args, location });
                }
                Built::Command(command) => match program.stages.last_mut() {
                    Some(stage) => stage.commands.push(command),
                    None => return Err(Error::from(InstructionError::NoStage).at(&statement.location)),
                },
            }
        }
        Ok(program)
    }

    /// Names of all stages that have one.
    pub fn stage_names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|stage| stage.name.as_str()).filter(|name| !name.is_empty())
    }
}

/// Understands a statement that cannot begin a stage.
pub(crate) fn build_command(statement: &Statement, lint: &Linter) -> Result<Command, Error> {
    match build_statement(statement, lint)? {
        Built::Command(command) => Ok(command),
        Built::Stage(_) => Err(Error::from(InstructionError::NotACommand).at(&statement.location)),
    }
}

fn build_statement(statement: &Statement, lint: &Linter) -> Result<Built, Error> {
    let lint = lint.with_comments(&statement.comments);
    let built = match statement.keyword.to_ascii_lowercase().as_str() {
        "from" => from::build(statement, &lint).map(Built::Stage),
        keyword => build::instruction(keyword, statement, &lint).map(|instruction| {
            Built::Command(Command {
                keyword: statement.keyword.clone(),
                code: statement.original.trim().to_owned(),
                location: statement.location.clone(),
                comments: statement.comments.clone(),
                instruction,
            })
        }),
    };
    built.map_err(|error| {
        let error = match error.kind() {
            ErrorKind::Instruction(InstructionError::Unknown(_)) => {
                error.suggest(&statement.keyword, KEYWORDS, Case::Insensitive)
            }
            _ => error,
        };
        error.at(&statement.location)
    })
}

/// The part of the comments that describes `name`.
fn doc_comment(comments: &[String], name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    comments
        .iter()
        .find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests;
