//! `--call` and `--check`.

use super::{boolean, csv};
use crate::error::{Error, Result};

/// A question to the frontend instead of a build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// `lint`, `outline`, `targets`, `subrequests.describe`, …
    pub name: String,
    /// `json`, or empty for text.
    pub format: String,
    /// Exit with 0 whatever the answer says.
    pub ignore_status: bool,
}

/// Reads `NAME[,format=…][,ignorestatus=…]`; `None` for an ordinary build.
pub fn call(value: &str) -> Result<Option<Call>> {
    if value.is_empty() {
        return Ok(None);
    }
    let mut found = Call::default();
    for field in csv::fields(value)? {
        match field.split_once('=') {
            Some(("format", format)) => found.format = format.to_owned(),
            Some(("ignorestatus", text)) => {
                found.ignore_status = boolean(text)
                    .ok_or_else(|| Error::user(format!("invalid ignorestatus print value: {text}")))?;
            }
            Some(_) => return Err(Error::user(format!("invalid print field: {field}"))),
            None if found.name.is_empty() => found.name = field,
            None => return Err(Error::user(format!("invalid print value: {value}"))),
        }
    }
    if found.name == "check" {
        found.name = "lint".to_owned();
    }
    Ok((found.name != "build").then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_name_and_options() {
        assert_eq!(call("build").unwrap(), None);
        assert_eq!(call("").unwrap(), None);
        let found = call("check,format=json,ignorestatus=1").unwrap().unwrap();
        assert_eq!(found, Call { name: "lint".into(), format: "json".into(), ignore_status: true });
        for wrong in ["a,b", "a,x=y", "a,ignorestatus=maybe"] {
            assert!(call(wrong).is_err(), "{wrong}");
        }
    }
}
