//! The crate's error: what went wrong, where in the Dockerfile, and what may have been meant.
//!
//! `Display` gives the whole message, as it travels to clients. What a [`Resolver`] failed with is kept
//! as the source.
//!
//! [`Resolver`]: crate::Resolver

use crate::convert::ConvertError;
use crate::instruction::InstructionError;
use crate::lint::LintOptionError;
use crate::location::Range;
use crate::parser::ParseError;
use crate::shell::ShellError;
use crate::suggest::{Case, nearest};
use thiserror::Error as ThisError;

/// What a [`Resolver`](crate::Resolver) may fail with.
pub type ResolveError = Box<dyn std::error::Error + Send + Sync>;

/// A failure with the places in the Dockerfile that it concerns.
#[derive(Debug)]
pub struct Error {
    kind: Box<ErrorKind>,
    locations: Vec<Vec<Range>>,
}

/// What went wrong.
#[derive(Debug, ThisError)]
pub enum ErrorKind {
    #[error(transparent)]
    Parse(ParseError),
    #[error(transparent)]
    Shell(ShellError),
    #[error(transparent)]
    Instruction(InstructionError),
    #[error(transparent)]
    Convert(ConvertError),
    #[error("failed to parse check options: {0}")]
    LintOption(LintOptionError),
    #[error("lint violation found for rules: {}", .0.join(", "))]
    Lint(Vec<String>),
    #[error("{0}")]
    Resolve(#[source] ResolveError),
    #[error("dockerfile parse error on line {line}: {inner}")]
    OnLine { line: u32, inner: Box<ErrorKind> },
    #[error("{what}: {inner}")]
    Within { what: String, inner: Box<ErrorKind> },
    #[error("{inner} (did you mean {meant}?)")]
    Suggested { inner: Box<ErrorKind>, meant: String },
}

impl ErrorKind {
    /// The innermost failure, below all words that were put around it.
    pub fn innermost(&self) -> &ErrorKind {
        match self {
            Self::OnLine { inner, .. } | Self::Within { inner, .. } | Self::Suggested { inner, .. } => {
                inner.innermost()
            }
            other => other,
        }
    }
}

impl Error {
    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The places concerned, innermost first; each is one range a line.
    pub fn locations(&self) -> &[Vec<Range>] {
        &self.locations
    }

    /// What the resolver failed with, if it was the resolver.
    pub fn resolve_error(&self) -> Option<&ResolveError> {
        match self.kind.innermost() {
            ErrorKind::Resolve(error) => Some(error),
            _ => None,
        }
    }

    /// Adds a place.
    pub(crate) fn at(mut self, location: &[Range]) -> Self {
        self.locations.push(location.to_vec());
        self
    }

    /// Puts `location` in the stead of all places known so far.
    pub(crate) fn only_at(mut self, location: &[Range]) -> Self {
        self.locations = vec![location.to_vec()];
        self
    }

    /// Puts words before the message.
    pub(crate) fn within(self, what: impl Into<String>) -> Self {
        let kind = Box::new(ErrorKind::Within { what: what.into(), inner: self.kind });
        Self { kind, ..self }
    }

    pub(crate) fn on_line(self, line: u32) -> Self {
        Self { kind: Box::new(ErrorKind::OnLine { line, inner: self.kind }), ..self }
    }

    /// Adds a suggestion if one of `options` is near to `word`.
    pub(crate) fn suggest<'a>(
        self,
        word: &str,
        options: impl IntoIterator<Item = &'a str>,
        case: Case,
    ) -> Self {
        match nearest(word, options, case) {
            Some(meant) => Self { kind: Box::new(ErrorKind::Suggested { inner: self.kind, meant }), ..self },
            None => self,
        }
    }

    pub(crate) fn resolve(error: ResolveError) -> Self {
        ErrorKind::Resolve(error).into()
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.resolve_error().map(|error| error.as_ref() as &(dyn std::error::Error + 'static))
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind: Box::new(kind), locations: Vec::new() }
    }
}

macro_rules! from_kind {
    ($($error:ident => $variant:ident),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                ErrorKind::$variant(error).into()
            }
        })*
    };
}

from_kind!(ParseError => Parse, ShellError => Shell, InstructionError => Instruction, ConvertError => Convert, LintOptionError => LintOption);
