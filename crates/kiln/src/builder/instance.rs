//! Builders that were set up with Buildx. Those with the `remote` driver work; the others come with a later version.

use std::collections::BTreeMap;

use kiln_client::{Address, TlsOptions};
use serde::Deserialize;

use super::Choice;
use crate::error::{Context as _, Error, Result};
use crate::settings::Settings;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    #[serde(default)]
    driver: String,
    #[serde(default)]
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    driver_opts: Option<BTreeMap<String, String>>,
}

/// Looks the name up; `None` where Buildx knows none.
pub fn find(settings: &Settings, name: &str) -> Result<Option<Choice>> {
    let is_name =
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) && !name.starts_with('.');
    let (true, Some(dir)) = (is_name, settings.buildx_config_dir()) else { return Ok(None) };
    let path = dir.join("instances").join(name.to_lowercase());
    let data = match std::fs::read(&path) {
        Ok(data) => data,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).when(format!("read `{}`", path.display())),
    };
    let instance: Instance =
        serde_json::from_slice(&data).when(format!("understand `{}`", path.display()))?;
    if instance.driver != "remote" {
        return Err(Error::not_yet(format!("the builder {name:?} with the {} driver", instance.driver)));
    }
    let [node] = &instance.nodes[..] else {
        return Err(Error::not_yet(format!("the builder {name:?} with {} nodes", instance.nodes.len())));
    };
    let address = Address::parse(&node.endpoint).map_err(|error| Error::environment(error.to_string()))?;
    let options = node.driver_opts.clone().unwrap_or_default();
    let option = |key: &str| options.get(key).filter(|value| !value.is_empty()).cloned();
    let identity = option("cert").zip(option("key")).map(|(cert, key)| (cert.into(), key.into()));
    let tls =
        TlsOptions { server_name: option("servername"), ca: option("cacert").map(Into::into), identity };
    let has_tls = tls.ca.is_some() || tls.identity.is_some() || tls.server_name.is_some();
    Ok(Some(Choice::Remote { name: name.to_owned(), address, tls: has_tls.then_some(tls) }))
}
