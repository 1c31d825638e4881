//! What a build was asked for, without what must not be told.

use std::collections::BTreeMap;

use serde::Serialize;

use super::capture::{Capture, Material, SecretUse};

/// The frontend and its options, with the requests that it goes back to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The frontend's name; empty if the client sent a graph itself.
    pub frontend: String,
    /// Its options.
    pub args: BTreeMap<String, String>,
    /// What made the graphs that it was handed over.
    pub inputs: BTreeMap<String, Asked>,
    /// What the client asked for, where that is something else.
    pub root: Option<Asked>,
}

/// A request as statements tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Asked {
    #[serde(rename = "configSource")]
    pub(super) source: ConfigSource,
    #[serde(rename = "request")]
    pub(super) parameters: Parameters,
}

/// Where the context comes from, and the file in it that says what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ConfigSource {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uri: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) digest: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) path: String,
}

/// The rest of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Parameters {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) frontend: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) args: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) secrets: Vec<SecretUse>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ssh: Vec<SecretUse>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) locals: Vec<Local>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) inputs: BTreeMap<String, Asked>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<Box<Asked>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) compatibility_version: i64,
}

/// A folder of the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Local {
    pub(super) name: String,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// Options that say something about the machine rather than about the build.
const HOST_OPTIONS: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];
/// Options that end among the facts about the working copy start so.
const VCS: &str = "vcs:";
const VCS_SOURCE: &str = "vcs:source";

/// Leaves out options that are about the machine or about attestations, and passwords in addresses.
pub fn redact_request(frontend: &str, args: &BTreeMap<String, String>) -> Request {
    let context = args.get("contextkey").filter(|key| !key.is_empty()).map_or("context", String::as_str);
    let args = args
        .iter()
        .filter(|(key, _)| !HOST_OPTIONS.contains(&key.as_str()) && !key.starts_with("attest:"))
        .map(|(key, value)| {
            let is_address = key == context || key.starts_with("context:") || key == VCS_SOURCE;
            (key.clone(), if is_address { redact_credentials(value) } else { value.clone() })
        })
        .collect();
    Request { frontend: frontend.to_owned(), args, ..Request::default() }
}

impl Request {
    /// Whether it asks for anything.
    pub fn is_empty(&self) -> bool {
        self.frontend.is_empty() && self.args.is_empty() && self.inputs.is_empty()
    }

    /// The request as statements tell it; `sources` say what its context turned out to be.
    pub fn asked(&self, sources: &Capture) -> Asked {
        let mut args = self.args.clone();
        let filled = |key: &str| self.args.get(key).filter(|value| !value.is_empty());
        let context_key = match filled("contextkey") {
            Some(key) => key.as_str(),
            None if filled("input:context").is_some() => "input:context",
            None => "context",
        };
        let mut source = ConfigSource::default();
        if let Some(context) = filled(context_key) {
            let found = sources.find(context);
            let found = found.unwrap_or_else(|| Material { uri: context.clone(), digest: BTreeMap::new() });
            source.uri = redact_credentials(&found.uri);
            source.digest = found.digest;
            args.remove(context_key);
        }
        if filled("filename").is_some() {
            source.path = args.remove("filename").unwrap_or_default();
        }
        let parameters = Parameters {
            frontend: self.frontend.clone(),
            args,
            inputs: self.inputs.clone(),
            root: self.root.clone().map(Box::new),
            ..Parameters::default()
        };
        Asked { source, parameters }
    }
}

impl Asked {
    /// The same without what the client asked for at the top, for a request that others go back to.
    pub fn without_root(mut self) -> Self {
        self.parameters.root = None;
        self
    }
}

impl Parameters {
    /// Takes out the facts about the working copy.
    pub(super) fn take_vcs(&mut self) -> BTreeMap<String, String> {
        let mut vcs = BTreeMap::new();
        self.args.retain(|key, value| match key.strip_prefix(VCS) {
            Some(name) => {
                if !value.is_empty() {
                    vcs.insert(name.to_owned(), value.clone());
                }
                false
            }
            None => true,
        });
        vcs
    }

    /// Leaves out arguments of the build, labels, and names of secrets, here and in all requests behind it. Whether
    /// the request is not whole any more.
    pub(super) fn scrub(&mut self) -> bool {
        let before = self.args.len();
        self.args.retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
        let mut scrubbed = self.args.len() < before;
        self.secrets.clear();
        self.ssh.clear();
        for asked in self.inputs.values_mut().chain(self.root.as_deref_mut()) {
            scrubbed |= asked.parameters.scrub();
        }
        scrubbed
    }
}

/// An address with user and password masked; anything else as it is.
pub fn redact_credentials(text: &str) -> String {
    const MASK: &str = "xxxxx";
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else { return text.to_owned() };
    let masked = match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if user.is_empty() => String::new(),
        None => MASK.to_owned(),
    };
    format!("{scheme}://{masked}@{host}{tail}")
}
