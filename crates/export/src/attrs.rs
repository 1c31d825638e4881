//! Reading an exporter's options, with the rules and texts of Go's `strconv`.

use std::collections::BTreeMap;

use crate::error::ExportError;

/// Options as the client sends them.
pub type Attrs = BTreeMap<String, String>;

/// Reads a truth value. With nothing behind the key it counts as true where `empty_is_true`.
pub(crate) fn parse_bool(key: &str, value: &str, empty_is_true: bool) -> Result<bool, ExportError> {
    match value {
        "" if empty_is_true => Ok(true),
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(ExportError::NotBool { key: key.to_owned(), value: value.to_owned() }),
    }
}

/// Reads a whole number.
pub(crate) fn parse_int(value: &str) -> Result<i64, String> {
    value.parse().map_err(|error: std::num::ParseIntError| {
        let what = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {value:?}: {what}")
    })
}
