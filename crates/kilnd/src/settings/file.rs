//! The configuration file: BuildKit's `buildkitd.toml`, key by key.
//!
//! Unknown keys are passed over, as the original does, so that a file written for it can be used as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::units::{DiskSpace, Span};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct File {
    /// Deprecated in favour of `log.level`.
    pub debug: bool,
    pub trace: bool,
    pub root: Option<PathBuf>,
    #[serde(rename = "insecure-entitlements")]
    pub insecure_entitlements: Vec<String>,
    /// Folder with JSON files about the builder, which provenance tells.
    #[serde(rename = "provenanceEnvDir")]
    pub provenance_env_dir: Option<PathBuf>,
    pub log: Log,
    pub grpc: Grpc,
    pub worker: Workers,
    pub registry: BTreeMap<String, Registry>,
    pub dns: Dns,
    pub history: History,
    pub frontend: BTreeMap<String, Frontend>,
    pub system: System,
    pub otel: Otel,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Log {
    pub format: Option<String>,
    pub level: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Grpc {
    pub address: Vec<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub tls: Tls,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub ca: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Otel {
    #[serde(rename = "socketPath")]
    pub socket_path: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Workers {
    pub oci: OciWorker,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OciWorker {
    pub enabled: Option<bool>,
    pub labels: BTreeMap<String, String>,
    pub platforms: Vec<String>,
    pub binary: Option<PathBuf>,
    pub gc: Option<bool>,
    /// Deprecated in favour of `reservedSpace`.
    pub gckeepstorage: Option<DiskSpace>,
    pub reserved_space: Option<DiskSpace>,
    pub max_used_space: Option<DiskSpace>,
    pub min_free_space: Option<DiskSpace>,
    pub gcpolicy: Vec<GcRule>,
    pub network_mode: Option<String>,
    #[serde(rename = "max-parallelism")]
    pub max_parallelism: Option<usize>,
    pub default_cgroup_parent: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GcRule {
    pub all: bool,
    pub filters: Vec<String>,
    pub keep_duration: Option<Span>,
    /// Deprecated in favour of `reservedSpace`.
    pub keep_bytes: Option<DiskSpace>,
    pub reserved_space: Option<DiskSpace>,
    pub max_used_space: Option<DiskSpace>,
    pub min_free_space: Option<DiskSpace>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Registry {
    pub mirrors: Vec<String>,
    pub http: Option<bool>,
    pub insecure: Option<bool>,
    pub ca: Vec<PathBuf>,
    pub keypair: Vec<KeyPair>,
    pub tlsconfigdir: Vec<PathBuf>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct KeyPair {
    pub key: PathBuf,
    pub cert: PathBuf,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Dns {
    pub nameservers: Vec<String>,
    pub options: Vec<String>,
    pub search_domains: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct History {
    pub max_age: Option<Span>,
    pub max_entries: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Frontend {
    pub enabled: Option<bool>,
    pub allowed_repositories: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct System {
    pub max_registry_concurrency: Option<usize>,
}

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the configuration file `{}` cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration file `{}` is not right", path.display())]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
}

/// Reads a configuration file; one that is not there is an empty one, as with the original.
pub fn load(path: &Path) -> Result<File, Error> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(source) => return Err(Error::Read { path: path.to_path_buf(), source }),
    };
    toml::from_str(&text).map_err(|error| Error::Parse { path: path.to_path_buf(), source: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_original_are_understood() {
        let text = r#"
            debug = true
            root = "/var/lib/buildkit"
            insecure-entitlements = ["network.host"]
            [grpc]
              address = ["tcp://0.0.0.0:1234"]
              [grpc.tls]
                cert = "/c.pem"
            [worker.oci]
              max-parallelism = 4
              reservedSpace = "30%"
              [[worker.oci.gcpolicy]]
                all = true
                keepDuration = "48h"
                maxUsedSpace = "1GB"
            [registry."docker.io"]
              mirrors = ["localhost:5000"]
            [history]
              maxAge = 172800
            [unknown]
              key = 1
        "#;
        let file: File = toml::from_str(text).unwrap();
        assert!(file.debug);
        assert_eq!(file.worker.oci.max_parallelism, Some(4));
        assert_eq!(file.worker.oci.reserved_space, Some(DiskSpace::Percent(30)));
        assert_eq!(file.worker.oci.gcpolicy[0].max_used_space, Some(DiskSpace::Bytes(1 << 30)));
        assert_eq!(file.registry["docker.io"].mirrors, ["localhost:5000"]);
        assert_eq!(file.history.max_age, Some(Span(std::time::Duration::from_secs(172_800))));
    }

    #[test]
    fn a_wrong_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kilnd.toml");
        std::fs::write(&path, "root = 3").unwrap();
        let error = load(&path).unwrap_err();
        assert!(error.to_string().contains("kilnd.toml"));
        assert!(load(&folder.path().join("none.toml")).is_ok());
    }
}
