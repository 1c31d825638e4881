//! One instruction as keyword, flags and arguments; how arguments are split depends on the keyword.

use super::words::{leading_flags, plain_words, quoted_words, split_once_blank};
use super::{Heredoc, ParseError};
use crate::location::Range;
use serde_json::Value;

/// One instruction, its words not yet interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// As it is written.
    pub keyword: String,
    /// The `--flags`, without quotes.
    pub flags: Vec<String>,
    pub arguments: Arguments,
    /// Bodies of the heredocs that it opens.
    pub heredocs: Vec<Heredoc>,
    /// The logical line.
    pub original: String,
    /// Its lines, heredocs included.
    pub location: Vec<Range>,
    /// Comments directly above it.
    pub comments: Vec<String>,
}

/// What follows keyword and flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arguments {
    /// Words; `json` if they were written as a JSON array.
    Words { words: Vec<String>, json: bool },
    /// Names and values, of `ENV` and `LABEL`.
    Pairs(Vec<KeyValue>),
    /// The statement after `ONBUILD`.
    Nested(Box<Statement>),
}

/// A name with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: String,
    /// A blank stood between them instead of `=`.
    pub legacy: bool,
}

impl std::fmt::Display for KeyValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl Statement {
    pub(super) fn may_have_heredocs(&self) -> bool {
        match (&self.arguments, self.keyword.to_ascii_lowercase().as_str()) {
            (Arguments::Nested(nested), "onbuild") => nested.may_have_heredocs(),
            (Arguments::Words { json, .. }, "add" | "copy" | "run") => !json,
            _ => false,
        }
    }
}

/// Parses a logical line.
pub(super) fn parse(line: &str, escape: char, comments: Vec<String>) -> Result<Statement, ParseError> {
    parse_nested(line, escape, comments, false)
}

fn parse_nested(
    line: &str,
    escape: char,
    comments: Vec<String>,
    nested: bool,
) -> Result<Statement, ParseError> {
    let trimmed = line.trim();
    let (keyword, rest) = split_once_blank(trimmed).unwrap_or((trimmed, ""));
    let (flags, rest) = leading_flags(rest, escape);
    let rest = rest.trim();
    let arguments = match keyword.to_ascii_lowercase().as_str() {
        "add" | "copy" | "volume" => json_words(rest)?.unwrap_or_else(|| words(plain_words(rest))),
        "cmd" | "entrypoint" | "run" | "shell" => json_words(rest)?.unwrap_or_else(|| whole(rest)),
        "maintainer" | "stopsignal" | "user" | "workdir" => whole(rest),
        "expose" | "from" => words(plain_words(rest)),
        "arg" => words(quoted_words(rest, escape)),
        "env" => Arguments::Pairs(pairs(rest, "ENV", escape)?),
        "label" => Arguments::Pairs(pairs(rest, "LABEL", escape)?),
        "healthcheck" => healthcheck(rest)?,
        // A trigger of a trigger is refused later; its own arguments do not matter.
        "onbuild" if !rest.is_empty() && !nested => {
            Arguments::Nested(Box::new(parse_nested(rest, escape, Vec::new(), true)?))
        }
        _ => words(Vec::new()),
    };
    Ok(Statement {
        keyword: keyword.to_owned(),
        flags,
        arguments,
        heredocs: Vec::new(),
        original: line.to_owned(),
        location: Vec::new(),
        comments,
    })
}

fn words(words: Vec<String>) -> Arguments {
    Arguments::Words { words, json: false }
}

/// Everything as one word, if there is anything.
fn whole(rest: &str) -> Arguments {
    words(if rest.is_empty() { Vec::new() } else { vec![rest.to_owned()] })
}

/// The strings of a JSON array; `None` if `rest` is not one.
fn json_words(rest: &str) -> Result<Option<Arguments>, ParseError> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(rest) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        Value::String(word) => Ok(word),
        _ => Err(ParseError::NotStrings),
    });
    Ok(Some(Arguments::Words { words: strings.collect::<Result<_, _>>()?, json: true }))
}

fn healthcheck(rest: &str) -> Result<Arguments, ParseError> {
    if rest.is_empty() {
        return Ok(words(Vec::new()));
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim_start();
    let (mut all, json) = match json_words(command)?.unwrap_or_else(|| whole(command)) {
        Arguments::Words { words, json } => (words, json),
        _ => unreachable!("both are words"),
    };
    all.insert(0, kind.to_owned());
    Ok(Arguments::Words { words: all, json })
}

/// `name=value …`, or the older form `name value` with one pair.
fn pairs(rest: &str, keyword: &'static str, escape: char) -> Result<Vec<KeyValue>, ParseError> {
    let words = quoted_words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        let (key, value) = split_once_blank(rest).ok_or(ParseError::TwoArguments(keyword))?;
        return Ok(vec![KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: true }]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some((key, value)) => Ok(KeyValue { key: key.to_owned(), value: value.to_owned(), legacy: false }),
        None => Err(ParseError::NoEquals(word)),
    };
    words.into_iter().map(pair).collect()
}
