//! The servers that may answer for a domain: its mirrors, then the registry itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_oci::DEFAULT_DOMAIN;
use reqwest::Url;

use crate::error::RegistryError;
use crate::settings::{HostSettings, RegistrySettings, is_loopback_host};
use crate::transport::Transport;

/// Where the API of the default domain is served.
const DEFAULT_DOMAIN_HOST: &str = "registry-1.docker.io";
/// The API's version, the first part of every path.
const API_PATH: &str = "/v2";

/// One server.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Host and port.
    pub(crate) host: String,
    /// The path before the repository's name.
    base: String,
    https: bool,
    /// Set where plain http may be tried when https is not spoken; true once that was found.
    fallback: Option<Arc<AtomicBool>>,
    /// The domain asked for, where this server is another one.
    pub(crate) namespace: Option<String>,
    pub(crate) client: reqwest::Client,
}

impl Endpoint {
    fn new(
        host: &str,
        base: String,
        settings: Option<&HostSettings>,
        domain: &str,
        transport: &Transport,
    ) -> Result<Self, RegistryError> {
        let insecure = settings.and_then(|settings| settings.insecure).unwrap_or(false);
        let plain =
            settings.and_then(|settings| settings.plain_http).unwrap_or_else(|| is_loopback_host(host));
        let is_default = domain == DEFAULT_DOMAIN && host == DEFAULT_DOMAIN_HOST;
        let endpoint = Self {
            host: host.to_owned(),
            base,
            https: insecure || !plain,
            fallback: (insecure && plain).then(Arc::default),
            namespace: (host != domain && !is_default).then(|| domain.to_owned()),
            client: transport.client(host, settings, insecure)?,
        };
        // A host that makes no URL, or one with a user or path smuggled in, is refused here.
        match endpoint.url("x", "y") {
            Ok(url) if url.username().is_empty() && url.password().is_none() => Ok(endpoint),
            _ => Err(RegistryError::Host(host.to_owned())),
        }
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https && !self.fallback.as_ref().is_some_and(|plain| plain.load(Ordering::Relaxed))
    }

    /// From now on plain http; `false` if that is not allowed or was so already.
    pub(crate) fn fall_back(&self) -> bool {
        self.fallback.as_ref().is_some_and(|plain| !plain.swap(true, Ordering::Relaxed))
    }

    /// The server's root, `https://host`.
    pub(crate) fn origin(&self) -> String {
        format!("{}://{}", if self.is_https() { "https" } else { "http" }, self.host)
    }

    /// The address of something in a repository.
    pub(crate) fn url(&self, repository: &str, path: &str) -> Result<Url, RegistryError> {
        let text = format!("{}{}/{repository}/{path}", self.origin(), self.base);
        let mut url = Url::parse(&text).map_err(|_| RegistryError::Host(self.host.clone()))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }
}

/// The servers to ask for `domain`, in order. Only the last one may be written to.
pub(crate) fn endpoints(
    domain: &str,
    insecure: bool,
    settings: &RegistrySettings,
    transport: &Transport,
) -> Result<Vec<Endpoint>, RegistryError> {
    if domain.is_empty() {
        return Err(RegistryError::Host(domain.to_owned()));
    }
    // Who asks for no checks at this domain gets it, whatever is configured for it.
    let forced = HostSettings { insecure: Some(true), plain_http: Some(true), ..HostSettings::default() };
    let own = if insecure { Some(&forced) } else { settings.hosts.get(domain) };
    let mut found = Vec::new();
    for mirror in own.map(|own| own.mirrors.as_slice()).unwrap_or_default() {
        let (host, path) = split_mirror(mirror);
        let base = format!("{API_PATH}{path}");
        found.push(Endpoint::new(&host, base, settings.hosts.get(&host), domain, transport)?);
    }
    let host = if domain == DEFAULT_DOMAIN { DEFAULT_DOMAIN_HOST } else { domain };
    found.push(Endpoint::new(host, API_PATH.to_owned(), own, domain, transport)?);
    Ok(found)
}

/// `https://host/path`, `host/path` or `host` → host and path.
fn split_mirror(mirror: &str) -> (String, String) {
    let rest = mirror.split_once("://").map_or(mirror, |(_, rest)| rest);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    (host.to_owned(), if path.is_empty() { String::new() } else { format!("/{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(domain: &str, insecure: bool, settings: &RegistrySettings) -> Vec<String> {
        let transport = Transport::new(settings);
        endpoints(domain, insecure, settings, &transport)
            .unwrap()
            .iter()
            .map(|endpoint| endpoint.url("a/b", "blobs/c").unwrap().to_string())
            .collect()
    }

    #[test]
    fn mirrors_come_first() {
        let mut settings = RegistrySettings::default();
        settings.hosts.insert(
            "docker.io".into(),
            HostSettings {
                mirrors: vec!["https://one.example/some/path/".into(), "localhost:5000".into()],
                ..HostSettings::default()
            },
        );
        assert_eq!(
            urls("docker.io", false, &settings),
            [
                "https://one.example/v2/some/path/a/b/blobs/c?ns=docker.io",
                "http://localhost:5000/v2/a/b/blobs/c?ns=docker.io",
                "https://registry-1.docker.io/v2/a/b/blobs/c",
            ]
        );
        assert_eq!(urls("x.example:1", false, &settings), ["https://x.example:1/v2/a/b/blobs/c"]);
        assert_eq!(urls("[::1]:5000", false, &settings), ["http://[::1]:5000/v2/a/b/blobs/c"]);
        assert_eq!(urls("localhost", true, &settings), ["https://localhost/v2/a/b/blobs/c"]);
    }

    #[test]
    fn falls_back_once() {
        let settings = RegistrySettings::default();
        let transport = Transport::new(&settings);
        let endpoint = endpoints("x.example", true, &settings, &transport).unwrap().remove(0);
        assert!(endpoint.is_https());
        assert!(endpoint.fall_back());
        assert!(!endpoint.fall_back());
        assert!(!endpoint.is_https());
        assert!(endpoints("", false, &settings, &transport).is_err());
    }
}
