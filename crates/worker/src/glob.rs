//! Shell patterns for one path, with the rules of Go's `path.Match`: `*` and `?` stay within a path component,
//! `[a-z]` and `[^a-z]` are classes, `\` takes the next character as it is. These are the wildcards of `COPY`
//! sources; include and exclude lists have their own matcher (`kiln_session::pattern`).

/// The pattern has an unclosed or empty class, a range without an end, or ends in a lone `\`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Clone, Debug)]
enum Token {
    Star,
    AnyChar,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A parsed pattern.
#[derive(Clone, Debug)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Parses `pattern`.
    ///
    /// # Errors
    /// [`BadPattern`] when the pattern is malformed anywhere, not only where a match would get to.
    pub fn new(pattern: &str) -> Result<Glob, BadPattern> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => {
                    if matches!(tokens.last(), Some(Token::Star)) {
                        continue;
                    }
                    Token::Star
                }
                '?' => Token::AnyChar,
                '\\' => Token::Literal(chars.next().ok_or(BadPattern)?),
                '[' => class(&mut chars)?,
                c => Token::Literal(c),
            });
        }
        Ok(Glob { tokens })
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut token, mut at) = (0, 0);
        // Where to go on when the part after the last star fails: the star takes one more character. An earlier
        // star never has to be reconsidered, as a longer match of it could only start the rest later.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            let advanced = match self.tokens.get(token) {
                Some(Token::Star) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                None => {
                    if at == name.len() {
                        return true;
                    }
                    false
                }
                Some(wanted) => name.get(at).is_some_and(|&c| wanted.accepts(c)),
            };
            if advanced {
                token += 1;
                at += 1;
                continue;
            }
            match retry {
                Some((after_star, star_end)) if name.get(star_end).is_some_and(|&c| c != '/') => {
                    retry = Some((after_star, star_end + 1));
                    token = after_star;
                    at = star_end + 1;
                }
                _ => return false,
            }
        }
    }
}

impl Token {
    fn accepts(&self, c: char) -> bool {
        match self {
            Token::Star => false,
            Token::AnyChar => c != '/',
            Token::Literal(wanted) => *wanted == c,
            Token::Class { negated, ranges } => {
                ranges.iter().any(|&(low, high)| low <= c && c <= high) != *negated
            }
        }
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, BadPattern> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    match chars.next().ok_or(BadPattern)? {
        '-' | ']' => Err(BadPattern),
        '\\' => chars.next().ok_or(BadPattern),
        c => Ok(c),
    }
}

/// Whether `name` holds an unescaped `*`, `?` or `[`.
pub fn has_wildcards(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

/// Splits a path into the leading components without wildcards and the rest from the first component with one.
/// Both are cleaned; a rooted path keeps its `/` in the first part.
pub fn split_wildcards(path: &str) -> (String, String) {
    let cleaned = crate::path::clean(path);
    let rooted = cleaned.starts_with('/');
    let parts: Vec<&str> = cleaned.split('/').filter(|part| !part.is_empty()).collect();
    let first = parts.iter().position(|part| has_wildcards(part)).unwrap_or(parts.len());
    let mut fixed = parts[..first].join("/");
    if rooted {
        fixed.insert(0, '/');
    }
    (fixed, parts[first..].join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        let cases = [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("[a-ζ]*", "α", true),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("*", "", true),
            ("*", "a/b", false),
        ];
        for (pattern, name, want) in cases {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), want, "{pattern} against {name}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "[a-b-d]"] {
            assert_eq!(Glob::new(pattern).err(), Some(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn splits_at_the_first_wildcard() {
        assert_eq!(split_wildcards("/a/b*/c"), ("/a".into(), "b*/c".into()));
        assert_eq!(split_wildcards("/*"), ("/".into(), "*".into()));
        assert_eq!(split_wildcards("/a/b/"), ("/a/b".into(), String::new()));
        assert_eq!(split_wildcards("a/./b?"), ("a".into(), "b?".into()));
        assert_eq!(split_wildcards("/a\\*/b"), ("/a\\*/b".into(), String::new()));
    }
}
