//! Quoting as BuildKit's messages and image histories have it: double quotes, backslash escapes.

use std::fmt::Write;

/// `text` in double quotes, everything that does not print escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            ' '..='~' => quoted.push(character),
            _ => push_escaped_unless_printing(&mut quoted, character),
        }
    }
    quoted.push('"');
    quoted
}

fn push_escaped_unless_printing(quoted: &mut String, character: char) {
    let code = character as u32;
    let result = match code {
        0..=0x7f => write!(quoted, "\\x{code:02x}"),
        _ if !character.is_control() && !character.is_whitespace() && code != 0xad => {
            write!(quoted, "{character}")
        }
        0x80..=0xffff => write!(quoted, "\\u{code:04x}"),
        _ => write!(quoted, "\\U{code:08x}"),
    };
    result.expect("writing to a String cannot fail");
}

/// A list of quoted words: `["a" "b"]`.
pub fn quote_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(quote("a \"b\"\\\n\t\x01é\u{a0}"), r#""a \"b\"\\\n\t\x01é\u00a0""#);
        assert_eq!(quote_list(&["a".into(), "b c".into()]), r#"["a" "b c"]"#);
    }
}
