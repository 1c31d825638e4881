//! The answer to the `frontend.outline` subrequest: what can be given to a target.

use crate::instruction::ArgDefinition;
use crate::json::{JsonLocation, base64};
use crate::location::Range;
use crate::table::Table;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Version of the subrequest's format.
pub const OUTLINE_VERSION: &str = "1.0.0";

/// What can be given to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The target; empty if it has no name.
    pub name: String,
    pub description: String,
    pub args: Vec<OutlineArg>,
    pub secrets: Vec<OutlineMount>,
    pub ssh: Vec<OutlineMount>,
    /// The Dockerfile.
    pub source: Vec<u8>,
}

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    pub name: String,
    pub description: String,
    /// What it is unless it is given.
    pub value: String,
    pub location: Vec<Range>,
}

/// A secret or an ssh agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineMount {
    pub name: String,
    pub required: bool,
    pub location: Vec<Range>,
}

/// What one stage tells.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture {
    /// Arguments before the first stage, the same for all.
    pub(crate) global: Arc<BTreeMap<String, ArgInfo>>,
    /// Arguments of the stage itself.
    pub(crate) args: BTreeMap<String, ArgInfo>,
    /// Arguments that matter to the stage.
    pub(crate) used: BTreeSet<String>,
    pub(crate) secrets: BTreeMap<String, MountUse>,
    pub(crate) ssh: BTreeMap<String, MountUse>,
}

/// An argument and what its value comes from.
#[derive(Debug, Clone)]
pub(crate) struct ArgInfo {
    pub(crate) value: String,
    pub(crate) deps: BTreeSet<String>,
    doc_comment: String,
    location: Vec<Range>,
}

impl ArgInfo {
    pub(crate) fn new(definition: &ArgDefinition, location: &[Range]) -> Self {
        Self {
            value: String::new(),
            deps: BTreeSet::new(),
            doc_comment: definition.doc_comment.clone(),
            location: location.to_vec(),
        }
    }
}

/// The first use of a secret or an ssh agent.
#[derive(Debug, Clone)]
pub(crate) struct MountUse {
    required: bool,
    location: Vec<Range>,
}

impl MountUse {
    pub(crate) fn new(required: bool, location: &[Range]) -> Self {
        Self { required, location: location.to_vec() }
    }
}

impl Capture {
    fn arg(&self, name: &str) -> Option<&ArgInfo> {
        self.args.get(name).or_else(|| self.global.get(name))
    }

    /// The used arguments and all that they come from.
    fn all_used(&self) -> BTreeSet<&str> {
        let mut all = BTreeSet::new();
        let mut pending: Vec<&str> = self.used.iter().map(String::as_str).collect();
        while let Some(name) = pending.pop() {
            if all.insert(name) {
                pending
                    .extend(self.arg(name).into_iter().flat_map(|info| info.deps.iter().map(String::as_str)));
            }
        }
        all
    }
}

impl Outline {
    /// Gathers what the stages of a target tell; of a name that several know, the first one counts.
    pub(crate) fn gather<'a>(
        name: String,
        description: String,
        captures: impl Iterator<Item = &'a Capture>,
        source: &[u8],
    ) -> Self {
        let mut args: BTreeMap<&str, &ArgInfo> = BTreeMap::new();
        let mut secrets: BTreeMap<&str, &MountUse> = BTreeMap::new();
        let mut ssh: BTreeMap<&str, &MountUse> = BTreeMap::new();
        for capture in captures {
            for name in capture.all_used() {
                if let Some(info) = capture.arg(name) {
                    args.entry(name).or_insert(info);
                }
            }
            for (name, used) in &capture.secrets {
                secrets.entry(name).or_insert(used);
            }
            for (name, used) in &capture.ssh {
                ssh.entry(name).or_insert(used);
            }
        }
        let arg = |(name, info): (&str, &ArgInfo)| OutlineArg {
            name: name.to_owned(),
            description: info.doc_comment.clone(),
            value: info.value.clone(),
            location: info.location.clone(),
        };
        let mut args: Vec<OutlineArg> = args.into_iter().map(arg).collect();
        args.sort_by_key(|arg| first_line(&arg.location));
        Self { name, description, args, secrets: mounts(secrets), ssh: mounts(ssh), source: source.to_vec() }
    }

    /// `result.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let args = self.args.iter().map(|arg| JsonArg {
            name: &arg.name,
            description: &arg.description,
            value: &arg.value,
            location: location(&arg.location),
        });
        let mounts = |mounts: &'_ [OutlineMount]| -> Vec<JsonMount> {
            let mount = |mount: &OutlineMount| JsonMount {
                name: mount.name.clone(),
                required: mount.required,
                location: location(&mount.location),
            };
            mounts.iter().map(mount).collect()
        };
        crate::json::to_vec(&JsonOutline {
            name: &self.name,
            description: &self.description,
            args: args.collect(),
            secrets: mounts(&self.secrets),
            ssh: mounts(&self.ssh),
            sources: [base64(&self.source)],
        })
    }

    /// `result.txt`.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        let mut add = |table: Table| {
            text.push_str(&table.finish());
            text.push('\n');
        };
        if !self.name.is_empty() || !self.description.is_empty() {
            let mut table = Table::new(1);
            table.row(["TARGET:", if self.name.is_empty() { "(default)" } else { &self.name }]);
            if !self.description.is_empty() {
                table.row(["DESCRIPTION:", &self.description]);
            }
            add(table);
        }
        if !self.args.is_empty() {
            let mut table = Table::new(3);
            table.row(["BUILD ARG", "VALUE", "DESCRIPTION"]);
            self.args.iter().for_each(|arg| table.row([arg.name.as_str(), &arg.value, &arg.description]));
            add(table);
        }
        for (title, mounts) in [("SECRET", &self.secrets), ("SSH", &self.ssh)] {
            if mounts.is_empty() {
                continue;
            }
            let mut table = Table::new(3);
            table.row([title, "REQUIRED"]);
            mounts
                .iter()
                .for_each(|mount| table.row([mount.name.as_str(), if mount.required { "true" } else { "" }]));
            add(table);
        }
        text
    }
}

fn first_line(location: &[Range]) -> u32 {
    location.first().map_or(0, |range| range.start.line)
}

fn mounts(uses: BTreeMap<&str, &MountUse>) -> Vec<OutlineMount> {
    let mount = |(name, used): (&str, &MountUse)| OutlineMount {
        name: name.to_owned(),
        required: used.required,
        location: used.location.clone(),
    };
    let mut mounts: Vec<OutlineMount> = uses.into_iter().map(mount).collect();
    mounts.sort_by_key(|mount| first_line(&mount.location));
    mounts
}

fn location(ranges: &[Range]) -> Option<JsonLocation> {
    (!ranges.is_empty()).then(|| JsonLocation::new(ranges))
}

#[derive(Serialize)]
struct JsonOutline<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<JsonArg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<JsonMount>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<JsonMount>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct JsonArg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<JsonLocation>,
}

#[derive(Serialize)]
struct JsonMount {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<JsonLocation>,
}
