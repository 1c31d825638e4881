//! One line of comma-separated values with quotes, as in `type=local,"dest=a,b"`.

use crate::error::{Error, Result};

/// The fields of a line. A field in double quotes may hold commas, and a quote written twice.
pub fn fields(line: &str) -> Result<Vec<String>> {
    let wrong = |what: &str| Error::user(format!("invalid value `{line}`: {what}"));
    let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err(Error::user("invalid value: it is empty"));
    }
    let mut found = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                quoted_field(quoted).ok_or_else(|| wrong("a quoted field does not end with a quote"))?
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(wrong("a quote in a field that does not begin with one"));
                }
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        found.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(found),
        }
    }
}

/// Reads to the closing quote; what follows it is a comma or nothing.
fn quoted_field(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let quote = rest.find('"')?;
        field.push_str(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.as_bytes().first() {
            Some(b'"') => {
                field.push('"');
                rest = &rest[1..];
            }
            Some(b',') | None => return Some((field, rest)),
            Some(_) => return None,
        }
    }
}

/// Fields of the form `key=value`.
pub fn pairs(line: &str) -> Result<Vec<(String, String)>> {
    fields(line)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(Error::user(format!("invalid value {field}"))
                .hint("expected key=value pairs with commas between")),
        })
        .collect()
}

/// Writes one field so that [`fields`] reads it back.
pub fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) || field.starts_with(' ') {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_commas_outside_of_quotes() {
        let cases: [(&str, &[&str]); 7] = [
            ("a", &["a"]),
            ("a,b=c", &["a", "b=c"]),
            ("a,,b,", &["a", "", "b", ""]),
            (r#""a,b",c"#, &["a,b", "c"]),
            (r#""a""b""#, &["a\"b"]),
            (r#""","#, &["", ""]),
            ("a\r\n", &["a"]),
        ];
        for (line, expected) in cases {
            assert_eq!(fields(line).unwrap(), expected, "{line}");
        }
        for line in ["", "\n", r#"a"b"#, r#""a"#, r#""a"b"#] {
            assert!(fields(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn quoting_is_undone_by_reading() {
        for field in ["plain", "a,b", "q\"q", " lead", "k=v,w"] {
            assert_eq!(fields(&quote(field)).unwrap(), [field]);
        }
    }
}
