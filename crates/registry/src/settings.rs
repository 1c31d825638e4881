//! How to reach which host: mirrors, plain http, certificates. The shape of `buildkitd.toml`'s `registry`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Requests for content that one host gets at once; documents get one more. As many as the original allows.
const CONNECTIONS_PER_HOST: usize = 4;
/// As long as the original waits.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// Everything the client needs to know.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// By the domain of references, such as `docker.io` or `localhost:5000`.
    pub hosts: BTreeMap<String, HostSettings>,
    /// The `User-Agent` of all requests.
    pub user_agent: String,
    /// Proxies.
    pub proxy: ProxySettings,
    /// How many blobs are fetched from one host at once, and how many are sent to it.
    pub connections_per_host: usize,
    /// The wait before the first of a few further tries; each later one is twice as long.
    pub retry_wait: Duration,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxy: ProxySettings::default(),
            connections_per_host: CONNECTIONS_PER_HOST,
            retry_wait: RETRY_WAIT,
        }
    }
}

/// How to reach one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HostSettings {
    /// Hosts that are asked first, each with an optional path: `mirror.example/path`.
    pub mirrors: Vec<String>,
    /// Plain http; unset: only for this machine itself.
    #[serde(rename = "http")]
    pub plain_http: Option<bool>,
    /// Don't check certificates.
    pub insecure: Option<bool>,
    /// Files with certificates of authorities to trust beside the system's.
    #[serde(rename = "ca")]
    pub root_cas: Vec<PathBuf>,
    /// Certificates of our own to show.
    #[serde(rename = "keypair")]
    pub key_pairs: Vec<KeyPair>,
    /// Folders in Docker's layout: `*.crt` are authorities, `*.cert` with `*.key` are our own.
    #[serde(rename = "tlsconfigdir")]
    pub tls_config_dirs: Vec<PathBuf>,
}

/// A client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KeyPair {
    /// The private key's file.
    pub key: PathBuf,
    /// The certificate's file.
    #[serde(rename = "cert")]
    pub certificate: PathBuf,
}

/// Proxies, as the usual environment variables name them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxySettings {
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub no_proxy: Option<String>,
}

/// Proxy addresses may hold a password.
impl std::fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxySettings")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// Whether a host, with or without a port, is this machine itself: `localhost`, 127.0.0.0/8 or `::1`.
pub fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None if host.matches(':').count() == 1 => host.split(':').next().unwrap_or_default(),
        None => host,
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_loopback_host;

    #[test]
    fn knows_this_machine() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.8.8.8:80", "[::1]", "[::1]:5000", "::1"]
        {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in
            ["example.test", "127.0.0.1.example.test", "10.0.0.1:5000", "localhost.example.test", "[::2]:1"]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
