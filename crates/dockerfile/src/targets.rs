//! The answer to the `frontend.targets` subrequest: the stages that can be built.

use crate::error::Error;
use crate::instruction::Program;
use crate::json::{JsonLocation, base64};
use crate::lint::Linter;
use crate::location::Range;
use crate::parser::parse;
use crate::table::Table;
use serde::Serialize;

/// Version of the subrequest's format.
pub const TARGETS_VERSION: &str = "1.0.0";

/// The stages of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetList {
    pub targets: Vec<Target>,
    /// The Dockerfile.
    pub source: Vec<u8>,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    /// What the comment above says about it.
    pub description: String,
    /// It is the last one.
    pub default: bool,
    /// Its base, variables not expanded.
    pub base: String,
    /// Its `--platform`, variables not expanded.
    pub platform: String,
    pub location: Vec<Range>,
}

/// Lists the stages of a Dockerfile.
pub fn targets(text: &[u8]) -> Result<TargetList, Error> {
    let program = Program::build(&parse(text)?, &Linter::off())?;
    let count = program.stages.len();
    let targets = program.stages.into_iter().enumerate().map(|(at, stage)| Target {
        name: stage.name,
        description: stage.doc_comment,
        default: at + 1 == count,
        base: stage.base_name,
        platform: stage.platform,
        location: stage.location,
    });
    Ok(TargetList { targets: targets.collect(), source: text.to_vec() })
}

#[derive(Serialize)]
struct JsonList<'a> {
    targets: Option<Vec<JsonTarget<'a>>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct JsonTarget<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    platform: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<JsonLocation>,
}

impl TargetList {
    /// `result.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let targets = self.targets.iter().map(|target| JsonTarget {
            name: &target.name,
            default: target.default,
            description: &target.description,
            base: &target.base,
            platform: &target.platform,
            location: (!target.location.is_empty()).then(|| JsonLocation::new(&target.location)),
        });
        let targets = (!self.targets.is_empty()).then(|| targets.collect());
        crate::json::to_vec(&JsonList { targets, sources: [base64(&self.source)] })
    }

    /// `result.txt`.
    pub fn to_text(&self) -> String {
        let mut table = Table::new(1);
        table.row(["TARGET", "DESCRIPTION"]);
        for target in &self.targets {
            let name = match (target.name.as_str(), target.default) {
                ("", true) => "(default)".to_owned(),
                (name, true) => format!("{name} (default)"),
                (name, false) => name.to_owned(),
            };
            table.row([name.as_str(), &target.description]);
        }
        table.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_targets() {
        let list = targets(
            b"# build makes it\nFROM a AS build\nFROM --platform=$P b\n# bin holds it\nFROM build AS bin\n",
        )
        .unwrap();
        assert_eq!(
            list.to_text(),
            "TARGET        DESCRIPTION\nbuild         makes it\n              \nbin (default) holds it\n"
        );
        let json: serde_json::Value = serde_json::from_slice(&list.to_json()).unwrap();
        assert_eq!(
            json["targets"][1],
            serde_json::json!({"base": "b", "platform": "$P", "location": {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]}})
        );
        assert_eq!(json["targets"][2]["default"], true);
    }
}
