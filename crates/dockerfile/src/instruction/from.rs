//! `FROM`: the beginning of a stage.

use super::flags::{FlagKind, Flags};
use super::{Command, InstructionError, doc_comment};
use crate::error::Error;
use crate::lint::{Linter, Rule, check_description};
use crate::location::Range;
use crate::parser::{Arguments, Statement};

/// A stage: its `FROM` and what follows up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// In lower case; empty if it has none.
    pub name: String,
    /// The base as it is written, variables not expanded.
    pub base_name: String,
    /// The value of `--platform` as it is written; empty if there is none.
    pub platform: String,
    /// The keyword as it is written.
    pub keyword: String,
    /// What the comment above says about it.
    pub doc_comment: String,
    /// The logical line of the `FROM`.
    pub code: String,
    pub location: Vec<Range>,
    /// Comments directly above it.
    pub comments: Vec<String>,
    pub commands: Vec<Command>,
}

pub(super) fn build(statement: &Statement, lint: &Linter) -> Result<Stage, Error> {
    let Arguments::Words { words, .. } = &statement.arguments else {
        return Err(InstructionError::FromArguments.into());
    };
    check_casing(statement, words, lint);
    let name = match words.as_slice() {
        [_] => String::new(),
        [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => stage_name(name)?,
        _ => return Err(InstructionError::FromArguments.into()),
    };
    let flags = Flags::parse(&statement.flags, &[("platform", FlagKind::Text)])?;
    if !name.is_empty() {
        check_description("FROM", &[&name], &statement.comments, &statement.location, lint);
    }
    Ok(Stage {
        doc_comment: doc_comment(&statement.comments, &name),
        name,
        base_name: words[0].clone(),
        platform: flags.text_or_empty("platform"),
        keyword: statement.keyword.clone(),
        code: statement.original.trim().to_owned(),
        location: statement.location.clone(),
        comments: statement.comments.clone(),
        commands: Vec::new(),
    })
}

fn stage_name(written: &str) -> Result<String, InstructionError> {
    let name = written.to_lowercase();
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if begins_well && name.chars().all(allowed) {
        Ok(name)
    } else {
        Err(InstructionError::StageName(written.to_owned()))
    }
}

fn check_casing(statement: &Statement, words: &[String], lint: &Linter) {
    let [_, as_keyword, name, more @ ..] = words else { return };
    if more.is_empty() && *name != name.to_lowercase() {
        lint.report(
            Rule::StageNameCasing,
            &statement.location,
            format!("Stage name '{name}' should be lowercase"),
        );
    }
    // A keyword of mixed case is another rule's matter.
    let from = &statement.keyword;
    let wanted = match (from.to_lowercase() == *from, from.to_uppercase() == *from) {
        (true, _) => as_keyword.to_lowercase(),
        (_, true) => as_keyword.to_uppercase(),
        _ => return,
    };
    if wanted != *as_keyword {
        let detail = format!("'{as_keyword}' and '{from}' keywords' casing do not match");
        lint.report(Rule::FromAsCasing, &statement.location, detail);
    }
}
