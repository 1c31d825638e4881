//! Docker contexts: named engines.

use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use serde::Deserialize;

use super::config::Config;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// The context that means `DOCKER_HOST`, or the engine's usual socket.
pub const DEFAULT: &str = "default";
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Where an engine answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<DockerEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEndpoint {
    #[serde(default)]
    host: String,
}

/// The name of the context in use.
pub fn current(settings: &Settings, config: &Config) -> String {
    if let Some(context) = &settings.docker().context {
        return context.clone();
    }
    if settings.docker_host().is_some() {
        return DEFAULT.to_owned();
    }
    let configured = Some(config.current_context.clone()).filter(|name| !name.is_empty());
    settings.docker_context().or(configured).unwrap_or_else(|| DEFAULT.to_owned())
}

/// Where the engine of a context answers.
pub fn endpoint(settings: &Settings, config: &Config, context: Option<&str>) -> Result<Endpoint> {
    let name = context.map_or_else(|| current(settings, config), str::to_owned);
    if name == DEFAULT {
        return match settings.docker_host() {
            Some(host) => parse(&host),
            None => Ok(Endpoint::Unix(DEFAULT_SOCKET.into())),
        };
    }
    let dir = settings.docker_config_dir().ok_or_else(|| unknown(&name))?;
    parse(&host_of(&dir, &name)?)
}

fn host_of(dir: &Path, name: &str) -> Result<String> {
    let id = Digest::sha256_of(name);
    let path = dir.join("contexts/meta").join(id.hex()).join("meta.json");
    let data = std::fs::read(&path).map_err(|_| unknown(name))?;
    let metadata: Metadata = serde_json::from_slice(&data).map_err(|error| {
        Error::environment(format!("the Docker context {name:?} cannot be read")).because(error)
    })?;
    let host = metadata.endpoints.docker.map(|docker| docker.host).filter(|host| !host.is_empty());
    host.ok_or_else(|| Error::environment(format!("the Docker context {name:?} names no engine")))
}

fn unknown(name: &str) -> Error {
    Error::environment(format!("there is no Docker context {name:?}")).hint("see `docker context ls`")
}

fn parse(host: &str) -> Result<Endpoint> {
    match host.split_once("://") {
        Some(("unix", path)) => Ok(Endpoint::Unix(path.into())),
        Some(("tcp" | "http", address)) => Ok(Endpoint::Tcp(address.trim_end_matches('/').to_owned())),
        _ => Err(Error::not_yet(format!("a Docker Engine at {host}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[test]
    fn the_default_is_the_usual_socket() {
        let config = Config::default();
        assert_eq!(
            endpoint(&settings(&[]), &config, None).unwrap().to_string(),
            "unix:///var/run/docker.sock"
        );
        let found = settings(&[("DOCKER_HOST", "tcp://127.0.0.1:2375"), ("DOCKER_CONTEXT", "other")]);
        assert_eq!(endpoint(&found, &config, None).unwrap().to_string(), "tcp://127.0.0.1:2375");
        assert!(endpoint(&settings(&[("DOCKER_HOST", "ssh://x")]), &config, None).is_err());
    }

    #[test]
    fn a_context_names_its_engine() {
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().join("contexts/meta").join(Digest::sha256_of("mine").hex());
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"mine","Endpoints":{"docker":{"Host":"unix:///m.sock"}}}"#,
        )
        .unwrap();
        let found = settings(&[("DOCKER_CONFIG", dir.path().to_str().unwrap()), ("DOCKER_CONTEXT", "mine")]);
        let config = Config { current_context: "gone".into(), ..Config::default() };
        assert_eq!(endpoint(&found, &config, None).unwrap(), Endpoint::Unix("/m.sock".into()));
        assert!(endpoint(&found, &config, Some("gone")).is_err());
    }
}
