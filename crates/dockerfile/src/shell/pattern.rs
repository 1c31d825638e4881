//! Shell patterns in expansions: `?` is one character, `*` any run of them; there are no brackets.

use super::ShellError;
use regex::Regex;

/// Cuts the part of `value` that `pattern` matches at its beginning: the longest, or the shortest.
pub(super) fn cut_prefix(value: &str, pattern: &str, greedy: bool) -> Result<String, ShellError> {
    let regex = compile(pattern, greedy, true)?;
    Ok(match regex.find(value) {
        Some(found) => value[found.end()..].to_owned(),
        None => value.to_owned(),
    })
}

/// Cuts the part of `value` that `pattern` matches at its end. A leftmost search cannot find the
/// shortest match at the right, so both are turned around.
pub(super) fn cut_suffix(value: &str, pattern: &str, greedy: bool) -> Result<String, ShellError> {
    let value: String = value.chars().rev().collect();
    let cut = cut_prefix(&value, &reversed(pattern), greedy)?;
    Ok(cut.chars().rev().collect())
}

/// Replaces the first or all matches of `pattern` with `text`.
pub(super) fn replace(value: &str, pattern: &str, text: &str, all: bool) -> Result<String, ShellError> {
    let regex = compile(pattern, true, false)?;
    if all {
        return Ok(regex.replace_all(value, text).into_owned());
    }
    Ok(match regex.find(value) {
        Some(found) => format!("{}{text}{}", &value[..found.start()], &value[found.end()..]),
        None => value.to_owned(),
    })
}

/// The pattern backwards, each escape still before its character.
fn reversed(pattern: &str) -> String {
    let mut pieces = Vec::new();
    let mut chars = pattern.chars();
    while let Some(character) = chars.next() {
        match (character, chars.clone().next()) {
            ('\\', Some(escaped)) => {
                chars.next();
                pieces.push(format!("\\{escaped}"));
            }
            _ => pieces.push(character.to_string()),
        }
    }
    pieces.into_iter().rev().collect()
}

fn compile(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, ShellError> {
    let invalid = |reason: String| ShellError::Pattern { pattern: pattern.to_owned(), reason };
    let mut source = String::with_capacity(pattern.len() + 4);
    if anchored {
        source.push('^');
    }
    let mut chars = pattern.chars().peekable();
    while let Some(character) = chars.next() {
        match character {
            '*' => source.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => source.push('.'),
            // These two end the parts of a substitution, so they come escaped, and the escape is not
            // part of the pattern.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\')) => source.extend(['\\', escaped]),
                other => return Err(invalid(format!("invalid escape '\\{}'", other.unwrap_or('\u{fffd}')))),
            },
            plain => source.push_str(&regex::escape(plain.encode_utf8(&mut [0; 4]))),
        }
    }
    Regex::new(&source).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting() {
        for (value, pattern, greedy, prefix, suffix) in [
            ("foobar", "f*o", false, "obar", "foobar"),
            ("a.b.c", "*.", true, "c", "a.b.c"),
            ("a.b.c", ".*", true, "a.b.c", "a"),
            ("a.b.c", ".*", false, "a.b.c", "a.b"),
            ("*x*", "\\*", false, "x*", "*x"),
        ] {
            assert_eq!(cut_prefix(value, pattern, greedy).unwrap(), prefix, "{value} # {pattern}");
            assert_eq!(cut_suffix(value, pattern, greedy).unwrap(), suffix, "{value} % {pattern}");
        }
    }

    #[test]
    fn replacing() {
        assert_eq!(replace("/foo/foo", "f?o", "x", false).unwrap(), "/x/foo");
        assert_eq!(replace("/foo/foo", "f?o", "x", true).unwrap(), "/x/x");
        assert_eq!(replace("a/b", "\\/", "_", true).unwrap(), "a_b");
        assert!(replace("a", "\\q", "", true).is_err());
    }
}
