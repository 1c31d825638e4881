//! Text to statements: lines, continuations, comments, parser directives, heredocs, and each
//! instruction split into keyword, flags and arguments. What the words mean is not known here.

mod directive;
mod heredoc;
mod line;
mod statement;
mod words;

pub(crate) use directive::parse_comment_directive;
pub use directive::{Directive, detect_syntax, find_directive};
pub use heredoc::Heredoc;
pub(crate) use heredoc::chomped;
pub use statement::{Arguments, KeyValue, Statement};

use crate::error::Error;
use crate::limits::{CONTINUATION_LINES_MAX, DOCKERFILE_BYTES_MAX, LINE_BYTES_MAX, STATEMENTS_MAX};
use crate::location::lines;
use crate::shell::ShellError;
use directive::DirectiveParser;
use line::{Joined, Lines};
use thiserror::Error as ThisError;

/// The escape character of a Dockerfile that does not choose one.
pub const DEFAULT_ESCAPE: char = '\\';

/// Why a text is no Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum ParseError {
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("the Dockerfile is larger than {0} bytes")]
    TooLarge(usize),
    #[error("more than {0} instructions")]
    TooManyInstructions(usize),
    #[error("more than {0} lines are joined to one")]
    TooManyLines(usize),
    #[error("file with no instructions")]
    NoInstructions,
    #[error("dockerfile line greater than max allowed size of {}", LINE_BYTES_MAX - 1)]
    LineTooLong,
    #[error("only one {0} parser directive can be used")]
    RepeatedDirective(String),
    #[error("invalid escape token '{0}' does not match ` or \\")]
    Escape(String),
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    #[error(transparent)]
    HeredocWord(ShellError),
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    NotStrings,
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    #[error("Syntax error - can't find = in {}. Must be of the form: name=value", crate::values::quote(.0))]
    NoEquals(String),
}

/// A Dockerfile as a list of statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    pub statements: Vec<Statement>,
    /// The escape character in force.
    pub escape: char,
    /// Last lines of the statements that have an empty line within a continuation.
    pub empty_continuations: Vec<u32>,
}

/// Parses a whole Dockerfile. Bytes that are not UTF-8 are replaced.
pub fn parse(text: &[u8]) -> Result<Dockerfile, Error> {
    if text.len() > DOCKERFILE_BYTES_MAX {
        return Err(ParseError::TooLarge(DOCKERFILE_BYTES_MAX).into());
    }
    let text = String::from_utf8_lossy(text);
    let mut lines = Lines::new(&text);
    let mut directives = DirectiveParser::new("#", 0);
    let mut dockerfile =
        Dockerfile { statements: Vec::new(), escape: DEFAULT_ESCAPE, empty_continuations: Vec::new() };
    let mut comments = Vec::new();
    while let Some(raw) = lines.next() {
        note_comment(raw, &mut comments);
        let start = line::without_line_end(raw).trim_start();
        match directives.line(start) {
            Ok(None) => {}
            Ok(Some(directive)) => {
                comments.pop();
                if directive.name == "escape" {
                    dockerfile.escape = escape_character(&directive.value)
                        .map_err(|error| at(error, lines.number() - 1, 0))?;
                }
            }
            Err(error) => return Err(at(error, lines.number() - 1, 0)),
        }
        let first = if line::is_comment(start) { "" } else { start };
        let start_line = lines.number();
        let Some(joined) = line::join(first, &mut lines, dockerfile.escape) else { continue };
        let Joined { text, has_empty_line } = joined;
        if has_empty_line {
            dockerfile.empty_continuations.push(lines.number());
        }
        let end_line = lines.number();
        if (end_line - start_line) as usize > CONTINUATION_LINES_MAX {
            return Err(at(ParseError::TooManyLines(CONTINUATION_LINES_MAX), start_line, 0));
        }
        let mut statement = statement::parse(&text, dockerfile.escape, std::mem::take(&mut comments))
            .map_err(|error| at(error, start_line, end_line))?;
        if statement.may_have_heredocs() && text.contains("<<") {
            statement.heredocs = heredoc::of_line(&text)
                .and_then(|heredocs| heredoc::read_bodies(heredocs, &mut lines))
                .map_err(|error| at(error, start_line, lines.number()))?;
        }
        statement.location = crate::location::lines(start_line, lines.number());
        if dockerfile.statements.len() == STATEMENTS_MAX {
            return Err(at(ParseError::TooManyInstructions(STATEMENTS_MAX), start_line, 0));
        }
        dockerfile.statements.push(statement);
    }
    if dockerfile.statements.is_empty() {
        return Err(at(ParseError::NoInstructions, lines.number(), 0));
    }
    if lines.too_long() {
        return Err(at(ParseError::LineTooLong, lines.number(), 0));
    }
    Ok(dockerfile)
}

/// Parses one statement that an image carries as a build trigger.
pub fn parse_trigger(text: &str) -> Result<Vec<Statement>, Error> {
    parse(text.as_bytes()).map(|dockerfile| dockerfile.statements)
}

fn at(error: ParseError, start: u32, end: u32) -> Error {
    Error::from(error).at(&lines(start, end))
}

/// Comments directly above a statement belong to it; an empty comment ends them.
fn note_comment(raw: &str, comments: &mut Vec<String>) {
    if !line::is_comment(raw) {
        return;
    }
    let mut rest = raw.chars();
    rest.next();
    match rest.as_str().trim() {
        "" => comments.clear(),
        comment => comments.push(comment.to_owned()),
    }
}

fn escape_character(value: &str) -> Result<char, ParseError> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        other => Err(ParseError::Escape(other.to_owned())),
    }
}

#[cfg(test)]
mod tests;
