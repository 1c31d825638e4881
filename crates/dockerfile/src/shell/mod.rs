//! Variable expansion and word splitting, in the manner of a POSIX shell.
//!
//! Known forms: `$name`, `${name}`, the modifiers `-` `+` `?` with and without a colon, `#` `##` `%`
//! `%%` (cut a prefix or suffix) and `/` `//` (replace), single and double quotes, and the escape
//! character of the Dockerfile. A variable without a value expands to nothing, unless the lexer is
//! told to leave such a reference as it stands.

mod env;
mod pattern;
mod scan;

pub use env::{Env, NoEnv};

use crate::values::quote;
use indexmap::IndexSet;
use scan::Scanner;
use thiserror::Error;

/// Why a word cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShellError {
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    #[error("unexpected end of statement while looking for matching {0}")]
    Stop(char),
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern ({pattern}) in substitution: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("substitutions are nested more than {0} deep")]
    TooDeep(usize),
    #[error("the expanded text is larger than {0} bytes")]
    TooLarge(usize),
    #[error("failed to process {}: {source}", quote(.word))]
    Word { word: String, source: Box<ShellError> },
}

/// The names of variables that a word refers to, each once, in order of appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Those that had a value.
    pub matched: IndexSet<String>,
    /// Those that had none.
    pub unmatched: IndexSet<String>,
}

impl Uses {
    fn add(&mut self, name: &str, found: bool) {
        let names = if found { &mut self.matched } else { &mut self.unmatched };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
    }
}

/// How words are expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexer {
    /// The character that takes the meaning from the next one.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape characters stay in the result.
    pub raw_escapes: bool,
    /// Quotes are ordinary characters.
    pub ignore_quotes: bool,
    /// A reference to a variable without a value stays as it is written.
    pub keep_unset: bool,
}

impl Lexer {
    /// A lexer that expands everything and removes quotes and escapes.
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, ignore_quotes: false, keep_unset: false }
    }

    /// Expands `word` into one text.
    pub fn expand(&self, word: &str, env: &dyn Env) -> Result<String, ShellError> {
        self.expand_noting(word, env, &mut Uses::default())
    }

    /// As [`Lexer::expand`], and notes in `uses` which variables were met, also when it fails.
    pub fn expand_noting(&self, word: &str, env: &dyn Env, uses: &mut Uses) -> Result<String, ShellError> {
        Scanner::new(self, word, env, uses)
            .run()
            .map(|(text, _)| text)
            .map_err(|source| in_word(word, source))
    }

    /// Expands `word`, then splits it at spaces outside of quotes.
    pub fn split(&self, word: &str, env: &dyn Env) -> Result<Vec<String>, ShellError> {
        let mut uses = Uses::default();
        Scanner::new(self, word, env, &mut uses)
            .run()
            .map(|(_, words)| words)
            .map_err(|source| in_word(word, source))
    }
}

fn in_word(word: &str, source: ShellError) -> ShellError {
    ShellError::Word { word: word.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests;
