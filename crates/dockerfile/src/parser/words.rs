//! Splitting arguments into words, where quotes keep words together but stay in them: expansion
//! removes them later.

/// Blanks that separate the keyword and plain words.
pub(super) const BLANKS: [char; 5] = ['\t', '\x0b', '\x0c', '\r', ' '];

/// `text` cut in two at the first run of blanks.
pub(super) fn split_once_blank(text: &str) -> Option<(&str, &str)> {
    let (first, rest) = text.split_once(BLANKS)?;
    Some((first, rest.trim_start_matches(BLANKS)))
}

/// Words separated by blanks, quotes having no meaning.
pub(super) fn plain_words(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Words separated by spaces outside of quotes. Quotes and escapes are kept.
pub(super) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(character) = chars.next() {
        if quote.is_none() && character.is_whitespace() {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        match quote {
            Some(open) if open == character => quote = None,
            None if matches!(character, '\'' | '"') => quote = Some(character),
            _ => {}
        }
        // Within single quotes nothing can be escaped.
        if character == escape && quote != Some('\'') {
            let Some(escaped) = chars.next() else { break };
            word.extend([character, escaped]);
        } else {
            word.push(character);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The `--flags` at the beginning of arguments, without quotes and escapes, and what follows them.
/// A lone `--` ends them.
pub(super) fn leading_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (word, after) = unquoted_word(rest, escape);
        if word == "--" {
            return (flags, after);
        }
        flags.push(word);
        rest = after.trim_start();
    }
    (flags, rest)
}

fn unquoted_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, character)) = chars.next() {
        match quote {
            None if character.is_whitespace() => return (word, &text[at..]),
            Some(open) if open == character => quote = None,
            None if matches!(character, '\'' | '"') => quote = Some(character),
            _ if character == escape => {
                if let Some((_, escaped)) = chars.next() {
                    word.push(escaped);
                }
            }
            _ => word.push(character),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(quoted_words(r#"a="b c" d='e f' g\ h"#, '\\'), [r#"a="b c""#, "d='e f'", r"g\ h"]);
        assert_eq!(quoted_words("a=\"x\\\" y\" '\\' z\\", '\\'), ["a=\"x\\\" y\"", "'\\'", "z"]);
        assert_eq!(quoted_words("  ", '\\'), Vec::<String>::new());
    }

    #[test]
    fn flags_come_first() {
        let (flags, rest) = leading_flags(r#"--a=1 --b="x y" --c=\"z -x --d"#, '\\');
        assert_eq!(flags, ["--a=1", "--b=x y", "--c=\"z"]);
        assert_eq!(rest, "-x --d");
        assert_eq!(leading_flags("--a -- --b", '\\'), (vec!["--a".to_owned()], " --b"));
        assert_eq!(leading_flags("--a", '\\'), (vec!["--a".to_owned()], ""));
    }
}
