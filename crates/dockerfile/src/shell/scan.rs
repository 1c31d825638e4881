//! The scanner behind [`Lexer`](super::Lexer): one pass over a word, one function per construct.

use super::pattern::{cut_prefix, cut_suffix, replace};
use super::{Env, Lexer, ShellError, Uses};
use crate::limits::{EXPANSION_BYTES_MAX, EXPANSION_DEPTH_MAX};
use std::iter::Peekable;
use std::str::Chars;

/// Stands for the end of the text where a message has to name a character.
const END: char = '\u{fffd}';

pub(super) struct Scanner<'a> {
    lexer: &'a Lexer,
    chars: Peekable<Chars<'a>>,
    env: &'a dyn Env,
    uses: &'a mut Uses,
    raw_escapes: bool,
    depth: usize,
    bytes: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(lexer: &'a Lexer, text: &'a str, env: &'a dyn Env, uses: &'a mut Uses) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let raw_escapes = lexer.raw_escapes;
        Self { lexer, chars: text.chars().peekable(), env, uses, raw_escapes, depth: 0, bytes: 0 }
    }

    /// Expands everything: the text as one, and split into words.
    pub(super) fn run(mut self) -> Result<(String, Vec<String>), ShellError> {
        let (text, words) = self.until(None)?;
        Ok((text, words.finish()))
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    /// Expands up to `stop` (which is consumed), or to the end if there is none.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Words), ShellError> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(next) = self.peek() {
            match next {
                _ if stop == Some(next) => {
                    self.chars.next();
                    return Ok((text, words));
                }
                '$' => {
                    let value = self.dollar()?;
                    self.charge(value.len())?;
                    text.push_str(&value);
                    words.push_splitting(&value);
                }
                '<' => push_raw(&mut text, &mut words, &self.angle()),
                '\'' if !self.lexer.ignore_quotes => push_raw(&mut text, &mut words, &self.single_quotes()?),
                '"' if !self.lexer.ignore_quotes => push_raw(&mut text, &mut words, &self.double_quotes()?),
                _ => {
                    self.chars.next();
                    if next != self.lexer.escape {
                        text.push(next);
                        words.push(next);
                        continue;
                    }
                    if self.raw_escapes {
                        text.push(next);
                        words.push_raw(next);
                    }
                    if let Some(escaped) = self.chars.next() {
                        text.push(escaped);
                        words.push_raw(escaped);
                    }
                }
            }
        }
        match stop {
            None => Ok((text, words)),
            Some(stop) => Err(ShellError::Stop(stop)),
        }
    }

    /// Counts what was expanded so far against the limit.
    fn charge(&mut self, bytes: usize) -> Result<(), ShellError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > EXPANSION_BYTES_MAX { Err(ShellError::TooLarge(EXPANSION_BYTES_MAX)) } else { Ok(()) }
    }

    fn single_quotes(&mut self) -> Result<String, ShellError> {
        self.chars.next();
        let mut text = String::new();
        while let Some(character) = self.chars.next() {
            if character == '\'' {
                return Ok(self.requote('\'', text));
            }
            text.push(character);
        }
        Err(ShellError::SingleQuote)
    }

    fn double_quotes(&mut self) -> Result<String, ShellError> {
        self.chars.next();
        let mut text = String::new();
        while let Some(next) = self.peek() {
            match next {
                '"' => {
                    self.chars.next();
                    return Ok(self.requote('"', text));
                }
                '$' => {
                    let value = self.dollar()?;
                    self.charge(value.len())?;
                    text.push_str(&value);
                }
                _ => {
                    self.chars.next();
                    if next != self.lexer.escape {
                        text.push(next);
                        continue;
                    }
                    if self.raw_escapes {
                        text.push(next);
                    }
                    match self.peek() {
                        None => break,
                        // Only these can be escaped within quotes; any other escape character is itself.
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.lexer.escape => {
                            self.chars.next();
                            text.push(escaped);
                        }
                        Some(_) => text.push(next),
                    }
                }
            }
        }
        Err(ShellError::DoubleQuote)
    }

    fn requote(&self, quote: char, text: String) -> String {
        if self.lexer.raw_quotes { format!("{quote}{text}{quote}") } else { text }
    }

    /// A `<`; after two of them, spaces before the word of a heredoc belong to the same word.
    fn angle(&mut self) -> String {
        self.chars.next();
        if self.peek() != Some('<') {
            return "<".to_owned();
        }
        self.chars.next();
        let mut text = "<<".to_owned();
        while let Some(space) = self.chars.next_if(|next| matches!(next, '\t' | '\r' | ' ')) {
            text.push(space);
        }
        text
    }

    fn dollar(&mut self) -> Result<String, ShellError> {
        self.chars.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.lookup(&name) {
                Some(value) => value.to_owned(),
                None if self.lexer.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        if self.depth == EXPANSION_DEPTH_MAX {
            return Err(ShellError::TooDeep(EXPANSION_DEPTH_MAX));
        }
        self.depth += 1;
        let value = self.braces();
        self.depth -= 1;
        value
    }

    fn braces(&mut self) -> Result<String, ShellError> {
        self.chars.next();
        match self.peek() {
            None => return Err(ShellError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ShellError::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.chars.next().unwrap_or(END);
        match modifier {
            '}' => Ok(match self.lookup(&name) {
                Some(value) => value.to_owned(),
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            ':' => {
                let modifier = self.chars.next().unwrap_or(END);
                if matches!(modifier, '#' | '%') {
                    return Err(ShellError::Modifier(format!(":{modifier}")));
                }
                self.modified(&name, modifier, true)
            }
            '+' | '-' | '?' | '#' | '%' => self.modified(&name, modifier, false),
            '/' => self.replaced(&name),
            other => Err(ShellError::Modifier(other.to_string())),
        }
    }

    /// `${name-word}` and its kin, after the modifier. With `empty_is_unset`, a colon stood before it.
    fn modified(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Result<String, ShellError> {
        let cuts = matches!(modifier, '#' | '%');
        let word = self.operand('}', cuts, ShellError::MissingBrace)?;
        let shown = if empty_is_unset { format!(":{modifier}") } else { modifier.to_string() };
        let value = self.lookup(name);
        if value.is_none() && self.lexer.keep_unset {
            return Ok(format!("${{{name}{shown}{word}}}"));
        }
        let missing = value.is_none_or(|value| empty_is_unset && value.is_empty());
        let value_or_empty = value.unwrap_or_default();
        Ok(match modifier {
            '-' if missing => word,
            '+' if missing => String::new(),
            '+' => word,
            '?' if missing => {
                let why =
                    if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { why.to_owned() } else { word };
                return Err(ShellError::Required { name: name.to_owned(), message });
            }
            '-' | '?' => value_or_empty.to_owned(),
            '#' | '%' => {
                let (pattern, greedy) = match word.strip_prefix(modifier) {
                    Some(pattern) => (pattern, true),
                    None => (word.as_str(), false),
                };
                let cut = if modifier == '#' { cut_prefix } else { cut_suffix };
                cut(value_or_empty, pattern, greedy)?
            }
            _ => return Err(ShellError::Modifier(shown)),
        })
    }

    /// `${name/pattern/text}` and `${name//pattern/text}`, after the first slash.
    fn replaced(&mut self, name: &str) -> Result<String, ShellError> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.operand('/', true, ShellError::MissingSlash)?;
        let text = self.operand('}', true, ShellError::MissingBrace)?;
        match self.lookup(name) {
            None if self.lexer.keep_unset => Ok(format!("${{{name}/{pattern}/{text}}}")),
            value => replace(value.unwrap_or_default(), &pattern, &text, all),
        }
    }

    /// A part of a `${}` up to `stop`. Running into the end of the text is the error `at_end`.
    fn operand(&mut self, stop: char, raw_escapes: bool, at_end: ShellError) -> Result<String, ShellError> {
        let outer = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        let result = self.until(Some(stop));
        self.raw_escapes = outer;
        match result {
            Ok((text, _)) => Ok(text),
            Err(_) if self.peek().is_none() => Err(at_end),
            Err(error) => Err(error),
        }
    }

    /// The name of a variable: a number, one special character, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(first) if first.is_ascii_digit() => {
                while let Some(digit) = self.chars.next_if(|next| next.is_ascii_digit()) {
                    name.push(digit);
                }
            }
            Some(first) if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.chars.next();
                name.push(first);
            }
            _ => {
                while let Some(letter) = self.chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    name.push(letter);
                }
            }
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Option<&'a str> {
        let value = self.env.get(name);
        self.uses.add(name, value.is_some());
        value
    }
}

fn push_raw(text: &mut String, words: &mut Words, piece: &str) {
    text.push_str(piece);
    words.push_raw_str(piece);
}

/// Words as they come together: split at spaces, except where text is raw (quoted or escaped).
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn push(&mut self, character: char) {
        if !character.is_whitespace() {
            self.word.push(character);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn push_splitting(&mut self, text: &str) {
        text.chars().for_each(|character| self.push(character));
    }

    fn push_raw(&mut self, character: char) {
        self.word.push(character);
    }

    fn push_raw_str(&mut self, text: &str) {
        self.word.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}
