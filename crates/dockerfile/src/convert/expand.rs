//! Expands the variables of an instruction, with the values that hold where it stands.

use super::Converter;
use super::stages::{StageId, StageState};
use crate::error::Error;
use crate::instruction::{Command, Instruction, Mount, parse_mount};
use crate::limits::EXPANSIONS_BYTES_MAX;
use crate::lint::{Linter, Rule};
use crate::shell::{Env, Lexer, ShellError, Uses};
use crate::suggest::{Case, nearest};
use kiln_llb::EnvList;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Arguments that never become variables.
pub(super) const NON_ENV_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Expands words where one instruction stands, and reports variables that nothing defines.
pub(super) struct Expander<'a> {
    pub(super) lexer: Lexer,
    /// What holds before the instruction.
    pub(super) stage: &'a StageState,
    /// Bytes that expansions brought in so far, in the whole conversion.
    pub(super) expanded: &'a AtomicUsize,
    pub(super) command: &'a Command,
    pub(super) lint: &'a Linter,
}

impl Expander<'_> {
    pub(super) fn env(&self) -> &EnvList {
        &self.stage.state.settings().env
    }

    pub(super) fn word(&self, word: &str) -> Result<String, ShellError> {
        self.with(&self.lexer, word)
    }

    /// As it is, but for variables: no quotes, and the usual escape character.
    fn text(&self, text: &str) -> Result<String, ShellError> {
        self.with(&Lexer { ignore_quotes: true, ..Lexer::new('\\') }, text)
    }

    fn with(&self, lexer: &Lexer, word: &str) -> Result<String, ShellError> {
        let mut uses = Uses::default();
        let result = lexer.expand_noting(word, self.env(), &mut uses);
        self.report(&uses);
        let grown = result.as_ref().map_or(0, |text| text.len().saturating_sub(word.len()));
        if self.expanded.fetch_add(grown, Ordering::Relaxed) + grown > EXPANSIONS_BYTES_MAX {
            return Err(ShellError::TooLarge(EXPANSIONS_BYTES_MAX));
        }
        result
    }

    fn report(&self, uses: &Uses) {
        for name in &uses.unmatched {
            let declared = self.stage.build_args.iter().any(|arg| arg.key == *name);
            if declared || NON_ENV_ARGS.contains(&name.as_str()) || !self.lint.wants(Rule::UndefinedVar) {
                continue;
            }
            let mut detail = format!("Usage of undefined variable '${name}'");
            if let Some(meant) = nearest(name, Env::keys(self.env()), Case::Sensitive) {
                detail.push_str(&format!(" (did you mean ${meant}?)"));
            }
            self.lint.report(Rule::UndefinedVar, &self.command.location, detail);
        }
    }

    fn in_place<'w>(&self, words: impl IntoIterator<Item = &'w mut String>) -> Result<(), ShellError> {
        for word in words {
            *word = self.word(word)?;
        }
        Ok(())
    }

    /// The instruction with all its words expanded, but for mounts and arguments, which are special.
    pub(super) fn instruction(&self) -> Result<Instruction, ShellError> {
        let mut instruction = self.command.instruction.clone();
        let sources = match &mut instruction {
            Instruction::Add(add) => {
                self.in_place([&mut add.chown, &mut add.chmod, &mut add.checksum])?;
                &mut add.sources
            }
            Instruction::Copy(copy) => {
                self.in_place([&mut copy.chown, &mut copy.chmod])?;
                &mut copy.sources
            }
            Instruction::Env(pairs) | Instruction::Label(pairs) => {
                self.in_place(pairs.iter_mut().flat_map(|pair| [&mut pair.key, &mut pair.value]))?;
                return Ok(instruction);
            }
            Instruction::StopSignal(word) | Instruction::User(word) | Instruction::Workdir(word) => {
                self.in_place([word])?;
                return Ok(instruction);
            }
            Instruction::Volume(words) => {
                self.in_place(words)?;
                return Ok(instruction);
            }
            _ => return Ok(instruction),
        };
        self.in_place(&mut sources.paths)?;
        self.in_place([&mut sources.destination])?;
        for file in sources.inline.iter_mut().filter(|file| file.expand) {
            file.data = self.text(&file.data)?;
        }
        Ok(instruction)
    }

    /// The mounts of a `RUN`.
    pub(super) fn mounts(&self, records: &[String]) -> Result<Vec<Mount>, Error> {
        let mut expand = |word: &str| self.word(word).map_err(Error::from);
        records.iter().map(|record| parse_mount(record, &mut expand)).collect()
    }
}

impl Converter<'_> {
    pub(super) fn expander<'c>(
        &'c self,
        id: StageId,
        command: &'c Command,
        lint: &'c Linter,
    ) -> Expander<'c> {
        Expander { stage: &self.stages[id], lexer: self.lexer, expanded: &self.expanded, command, lint }
    }
}
