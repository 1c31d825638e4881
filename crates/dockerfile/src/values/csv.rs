//! One line of comma-separated values, as `--mount` and several build options carry them.

use thiserror::Error;

/// Why a line is not a record. Columns count bytes from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CsvError {
    #[error("EOF")]
    Empty,
    #[error("parse error on line 1, column {column}: bare \" in non-quoted-field")]
    BareQuote { column: usize },
    #[error("parse error on line 1, column {column}: extraneous or missing \" in quoted-field")]
    Quote { column: usize },
}

/// The fields of one line. Quoted fields may hold commas and doubled quotes; one trailing line end
/// is allowed.
pub fn fields(line: &str) -> Result<Vec<String>, CsvError> {
    let line = line.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(line);
    if line.is_empty() {
        return Err(CsvError::Empty);
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let (field, used) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted, at + 1)?,
            None => plain_field(rest, at)?,
        };
        fields.push(field);
        at += used;
        if at >= line.len() {
            // A comma in last place starts one more field, which is empty.
            return Ok(fields);
        }
        at += 1;
        if at == line.len() {
            fields.push(String::new());
            return Ok(fields);
        }
    }
}

fn plain_field(rest: &str, at: usize) -> Result<(String, usize), CsvError> {
    let field = rest.split(',').next().unwrap_or_default();
    match field.find('"') {
        Some(quote) => Err(CsvError::BareQuote { column: at + quote + 1 }),
        None => Ok((field.to_owned(), field.len())),
    }
}

/// `quoted` begins after the opening quote, at byte `at` of the line. The length given back counts
/// that quote.
fn quoted_field(quoted: &str, at: usize) -> Result<(String, usize), CsvError> {
    let mut field = String::new();
    let mut from = 0;
    while let Some(quote) = quoted[from..].find('"') {
        field.push_str(&quoted[from..from + quote]);
        from += quote + 1;
        match quoted[from..].chars().next() {
            Some('"') => {
                field.push('"');
                from += 1;
            }
            None | Some(',') => return Ok((field, from + 1)),
            Some(_) => return Err(CsvError::Quote { column: at + from }),
        }
    }
    Err(CsvError::Quote { column: at + from + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (line, want) in [
            ("a", vec!["a"]),
            ("a,b=c", vec!["a", "b=c"]),
            ("a,", vec!["a", ""]),
            (",", vec!["", ""]),
            (r#""a,b",c"#, vec!["a,b", "c"]),
            (r#""a""b""#, vec![r#"a"b"#]),
            (r#""x","#, vec!["x", ""]),
            ("a,b\r\n", vec!["a", "b"]),
        ] {
            assert_eq!(fields(line).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn bad_records() {
        assert_eq!(fields(""), Err(CsvError::Empty));
        assert_eq!(fields(r#"a"b"#), Err(CsvError::BareQuote { column: 2 }));
        assert_eq!(fields(r#"x,a"b"#), Err(CsvError::BareQuote { column: 4 }));
        assert_eq!(fields(r#""a"b"#), Err(CsvError::Quote { column: 3 }));
        assert!(matches!(fields(r#""a"#), Err(CsvError::Quote { .. })));
    }
}
