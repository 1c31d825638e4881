//! Heredocs: which words of a line open one, and reading their bodies.

use super::ParseError;
use super::line::{Lines, without_line_end};
use crate::shell::{Lexer, NoEnv};

/// A body of text given inline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes.
    pub name: String,
    /// The file descriptor before the `<<`; 0 if there is none.
    pub descriptor: u32,
    /// Variables in the body are expanded: no part of the word was quoted.
    pub expand: bool,
    /// Leading tabs are removed: it was opened by `<<-`.
    pub chomp: bool,
    /// The lines up to the final word, with their line ends.
    pub content: String,
}

impl Heredoc {
    /// The heredoc that a word opens, if it does; without a body.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        parse(word).ok().flatten()
    }
}

/// The text with the tabs at the beginning of each line removed.
pub(crate) fn chomped(text: &str) -> String {
    text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

fn parse(word: &str) -> Result<Option<Heredoc>, ParseError> {
    let (descriptor, rest) = word.split_at(word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len()));
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let lexer = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let raw_lexer = Lexer { raw_quotes: true, ..lexer };
    let words = lexer.split(rest, &NoEnv).map_err(ParseError::HeredocWord)?;
    let raw_words = raw_lexer.split(rest, &NoEnv).map_err(ParseError::HeredocWord)?;
    let ([name], [raw]) = (words.as_slice(), raw_words.as_slice()) else { return Ok(None) };
    let quotes = |word: &str| word.chars().filter(|c| matches!(c, '\'' | '"')).count();
    Ok(Some(Heredoc {
        name: name.clone(),
        descriptor: descriptor.parse().unwrap_or(0),
        expand: quotes(name) == quotes(raw),
        chomp,
        content: String::new(),
    }))
}

/// All heredocs that a logical line opens, in order.
pub(super) fn of_line(line: &str) -> Result<Vec<Heredoc>, ParseError> {
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    let words = lexer.split(line, &NoEnv).unwrap_or_default();
    words.iter().filter_map(|word| parse(word).transpose()).collect()
}

/// Reads the bodies, one after the other.
pub(super) fn read_bodies(
    mut heredocs: Vec<Heredoc>,
    lines: &mut Lines<'_>,
) -> Result<Vec<Heredoc>, ParseError> {
    for heredoc in &mut heredocs {
        loop {
            let line = lines.next().ok_or(ParseError::UnterminatedHeredoc)?;
            let end = without_line_end(line);
            let end = if heredoc.chomp { end.trim_start_matches('\t') } else { end };
            if end == heredoc.name {
                break;
            }
            heredoc.content.push_str(line);
        }
    }
    Ok(heredocs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_open_heredocs() {
        for (word, want) in [
            ("<<EOF", Some(("EOF", 0, true, false))),
            ("3<<-'E F'", Some(("E F", 3, false, true))),
            ("<< \"EOF\"", Some(("EOF", 0, false, false))),
            ("<<E\"O\"F", Some(("EOF", 0, false, false))),
            ("<<E\\'F", Some(("E'F", 0, true, false))),
            ("<<", None),
            ("<<<EOF", None),
            ("<EOF", None),
            ("a<<EOF", None),
            ("<<a b", None),
        ] {
            let got = Heredoc::of_word(word);
            let got = got.as_ref().map(|h| (h.name.as_str(), h.descriptor, h.expand, h.chomp));
            assert_eq!(got, want, "{word}");
        }
    }

    #[test]
    fn tabs_are_chomped_on_every_line() {
        assert_eq!(chomped("\t\ta\n b\n\tc\td"), "a\n b\nc\td");
    }
}
