//! Which rules are on: `skip=A,B;experimental=all;error=true`.

use super::Rule;
use crate::values::{parse_bool, quote};
use thiserror::Error;

/// Options beyond this many stay part of the last one.
const PARTS_MAX: usize = 3;

/// Why a text holds no options for checks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LintOptionError {
    #[error("invalid check option {}", quote(.0))]
    Unknown(String),
    #[error("failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax", quote(.option), quote(.value))]
    NotBool { option: String, value: String },
}

/// Which rules are on, and whether a violation fails the build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LintConfig {
    skip_all: bool,
    skip: Vec<String>,
    experimental_all: bool,
    experimental: Vec<String>,
    pub(super) fail: bool,
}

impl LintConfig {
    /// Reads the options of a `check` directive.
    pub fn parse(text: &str) -> Result<Self, LintOptionError> {
        let mut config = Self::default();
        if text.trim().is_empty() {
            return Ok(config);
        }
        for option in text.trim().splitn(PARTS_MAX, ';') {
            let (key, value) =
                option.split_once('=').ok_or_else(|| LintOptionError::Unknown(option.to_owned()))?;
            let value = value.trim();
            match key.trim() {
                "skip" if value == "all" => config.skip_all = true,
                "skip" => config.skip = names(value),
                "experimental" if value == "all" => config.experimental_all = true,
                "experimental" => config.experimental = names(value),
                "error" => {
                    let not_bool =
                        || LintOptionError::NotBool { option: option.to_owned(), value: value.to_owned() };
                    config.fail = parse_bool(value).ok_or_else(not_bool)?;
                }
                other => return Err(LintOptionError::Unknown(other.to_owned())),
            }
        }
        Ok(config)
    }

    /// The options of both; whether violations fail the build stays.
    pub(super) fn merged(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        merged.skip_all |= other.skip_all;
        merged.experimental_all |= other.experimental_all;
        merged.skip.extend_from_slice(&other.skip);
        merged.experimental.extend_from_slice(&other.experimental);
        merged
    }

    pub(super) fn applies(&self, rule: Rule) -> bool {
        let listed = |names: &[String]| names.iter().any(|name| name == rule.name());
        if rule.is_experimental() {
            self.experimental_all || listed(&self.experimental)
        } else {
            !self.skip_all && !listed(&self.skip)
        }
    }
}

fn names(value: &str) -> Vec<String> {
    value.split(',').map(|name| name.trim().to_owned()).collect()
}
