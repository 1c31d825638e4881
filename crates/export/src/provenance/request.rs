//! What a build was asked for, without what must not be told.

use std::collections::BTreeMap;

/// The frontend and its options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The frontend's name; empty if the client sent a graph itself.
    pub frontend: String,
    /// Its options.
    pub args: BTreeMap<String, String>,
}

/// Options that say something about the machine rather than about the build.
const HOST_OPTIONS: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

/// Leaves out options that are about the machine or about attestations, and passwords in addresses.
pub fn redact_request(frontend: &str, args: &BTreeMap<String, String>) -> Request {
    let context = args.get("contextkey").filter(|key| !key.is_empty()).map_or("context", String::as_str);
    let args = args
        .iter()
        .filter(|(key, _)| !HOST_OPTIONS.contains(&key.as_str()) && !key.starts_with("attest:"))
        .map(|(key, value)| {
            let is_address = key == context || key.starts_with("context:");
            (key.clone(), if is_address { redact_credentials(value) } else { value.clone() })
        })
        .collect();
    Request { frontend: frontend.to_owned(), args }
}

/// The request taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SplitRequest {
    /// The context's address; empty if it is a folder of the client.
    pub(super) context: String,
    /// The Dockerfile's name.
    pub(super) path: String,
    /// Facts about the working copy.
    pub(super) vcs: BTreeMap<String, String>,
    /// The rest.
    pub(super) args: BTreeMap<String, String>,
}

impl Request {
    pub(super) fn split(&self) -> SplitRequest {
        let mut args = self.args.clone();
        let filled = |key: &str| self.args.get(key).is_some_and(|value| !value.is_empty());
        let context_key = if filled("contextkey") {
            self.args["contextkey"].clone()
        } else if filled("input:context") {
            "input:context".to_owned()
        } else {
            "context".to_owned()
        };
        let context =
            if filled(&context_key) { args.remove(&context_key).unwrap_or_default() } else { String::new() };
        let path =
            if filled("filename") { args.remove("filename").unwrap_or_default() } else { String::new() };
        let mut vcs = BTreeMap::new();
        args.retain(|key, value| match key.strip_prefix("vcs:") {
            Some(name) => {
                if !value.is_empty() {
                    let told = if name == "source" { redact_credentials(value) } else { value.clone() };
                    vcs.insert(name.to_owned(), told);
                }
                false
            }
            None => true,
        });
        SplitRequest { context, path, vcs, args }
    }
}

/// Leaves out arguments of the build and labels; whether there were any.
pub(super) fn scrub(args: &mut BTreeMap<String, String>) -> bool {
    let before = args.len();
    args.retain(|key, _| !key.starts_with("build-arg:") && !key.starts_with("label:"));
    args.len() < before
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
