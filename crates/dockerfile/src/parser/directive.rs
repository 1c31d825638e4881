//! Parser directives: `# name=value` comments before everything else.

use super::ParseError;
use crate::location::Range;

const KNOWN: [&str; 3] = ["syntax", "escape", "check"];

/// A directive as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// In lower case.
    pub name: String,
    /// The whole value.
    pub value: String,
    /// Where it stands.
    pub location: Vec<Range>,
}

impl Directive {
    /// The value up to the first space.
    pub fn first_word(&self) -> &str {
        self.value.split(' ').next().unwrap_or_default()
    }
}

/// Reads directives line by line; the first line that is none ends them.
pub(super) struct DirectiveParser {
    prefix: &'static str,
    line: u32,
    seen: Vec<String>,
    done: bool,
}

impl DirectiveParser {
    /// `lines_before` lines came before the first one that is given to it.
    pub(super) fn new(prefix: &'static str, lines_before: u32) -> Self {
        Self { prefix, line: lines_before, seen: Vec::new(), done: false }
    }

    pub(super) fn line(&mut self, line: &str) -> Result<Option<Directive>, ParseError> {
        self.line += 1;
        if self.done {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.prefix).and_then(split) else {
            self.done = true;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(ParseError::RepeatedDirective(name));
        }
        self.seen.push(name.clone());
        Ok(Some(Directive { name, value: value.to_owned(), location: vec![Range::line(self.line)] }))
    }
}

/// Name and value of `name = value`, if the name is known.
fn split(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let (name, rest) = text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(text.len()));
    let name = name.to_ascii_lowercase();
    let rest = rest.trim_start_matches(is_blank).strip_prefix('=')?;
    let value = match rest.trim_matches(is_blank) {
        // Something has to be the value, and if there are but blanks, the last of them is.
        "" => &rest[rest.char_indices().next_back()?.0..],
        value => value,
    };
    KNOWN.contains(&name.as_str()).then_some((name, value))
}

fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

/// A directive within the text of a comment above an instruction.
pub(crate) fn parse_comment_directive(comment: &str) -> Option<Directive> {
    DirectiveParser::new("", 0).line(comment).ok().flatten()
}

/// The directive `name` of a Dockerfile.
pub fn find_directive(name: &str, text: &[u8]) -> Option<Directive> {
    let text = String::from_utf8_lossy(text);
    let (text, lines_before) = without_shebang(&text);
    find(name, text, "#", lines_before)
}

/// The `syntax` directive, which may also stand in `//` comments or in a JSON object, so that other
/// languages than Dockerfiles can choose their frontend.
pub fn detect_syntax(text: &[u8]) -> Option<Directive> {
    let text = String::from_utf8_lossy(text);
    let (text, lines_before) = without_shebang(&text);
    find("syntax", text, "#", lines_before)
        .or_else(|| find("syntax", text, "//", lines_before))
        .or_else(|| syntax_of_json(text, lines_before))
}

fn without_shebang(text: &str) -> (&str, u32) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if !text.starts_with("#!") {
        return (text, 0);
    }
    (text.split_once('\n').map(|(_, rest)| rest).unwrap_or_default(), 1)
}

fn find(name: &str, text: &str, prefix: &'static str, lines_before: u32) -> Option<Directive> {
    let mut parser = DirectiveParser::new(prefix, lines_before);
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match parser.line(line) {
            Ok(Some(directive)) if directive.name == name => return Some(directive),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

fn syntax_of_json(text: &str, line: u32) -> Option<Directive> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let value = object.get("syntax")?.as_str()?.to_owned();
    Some(Directive { name: "syntax".to_owned(), value, location: vec![Range::line(line)] })
}
