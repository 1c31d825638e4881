//! The Docker CLI's `config.json`, as far as a build needs it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The parts that are read; the rest is the Docker CLI's own.
#[derive(Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Config {
    /// Logins by registry.
    pub auths: BTreeMap<String, Auth>,
    /// Name of the program that keeps all logins.
    pub creds_store: String,
    /// Names of programs that keep the logins of single registries.
    pub cred_helpers: BTreeMap<String, String>,
    /// The Docker context in use.
    pub current_context: String,
    /// Proxies for steps, by the engine's address or `default`.
    pub proxies: BTreeMap<String, Proxy>,
}

/// A login. Has no `Debug`, so that it cannot be printed by accident.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// `user:password` in base64.
    pub auth: String,
    /// In place of `auth`, from some tools.
    pub username: String,
    /// In place of `auth`, from some tools.
    pub password: String,
    /// A refresh token, which takes the place of the password.
    pub identitytoken: String,
}

/// Proxies for steps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxy {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("registries", &self.auths.keys()).finish_non_exhaustive()
    }
}

impl Config {
    /// Reads the file; one that is not there is empty.
    pub fn load(settings: &Settings) -> Result<Self> {
        let Some(dir) = settings.docker_config_dir() else { return Ok(Self::default()) };
        Self::read(&dir.join("config.json"))
    }

    fn read(path: &Path) -> Result<Self> {
        let data = match std::fs::read(path) {
            Ok(data) => data,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => {
                return Err(Error::environment(format!("cannot read `{}`", path.display())).because(error));
            }
        };
        // What serde says of a mistake can hold a part of the file, which holds secrets: only the place is told.
        serde_json::from_slice(&data).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Error::environment(format!("`{}` is no valid configuration: {place}", path.display()))
        })
    }

    /// Build arguments for the proxies that steps shall use, in both spellings.
    pub fn proxy_args(&self, docker_host: &str) -> Vec<(String, String)> {
        let Some(proxy) = self.proxies.get(docker_host).or_else(|| self.proxies.get("default")) else {
            return Vec::new();
        };
        let all = [
            ("HTTP_PROXY", &proxy.http_proxy),
            ("HTTPS_PROXY", &proxy.https_proxy),
            ("NO_PROXY", &proxy.no_proxy),
            ("FTP_PROXY", &proxy.ftp_proxy),
            ("ALL_PROXY", &proxy.all_proxy),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_empty())
            .flat_map(|(name, value)| {
                [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(Config::read(&path).unwrap().auths.is_empty());
        std::fs::write(
            &path,
            r#"{"auths":{"r.test":{"auth":"dTpw"}},"credHelpers":{"x.test":"h"},"HttpHeaders":{"a":"b"},
                "proxies":{"default":{"httpProxy":"http://p","noProxy":"n"}}}"#,
        )
        .unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(config.auths["r.test"].auth, "dTpw");
        let expected =
            [("HTTP_PROXY", "http://p"), ("http_proxy", "http://p"), ("NO_PROXY", "n"), ("no_proxy", "n")];
        assert_eq!(config.proxy_args("unix:///x"), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_broken_file_is_told_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, r#"{"auths":"s3cret"}"#).unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
        assert!(error.contains("line 1"), "{error}");
    }
}
