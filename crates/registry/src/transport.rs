//! HTTP clients, one a host with settings of its own.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Mutex;
use std::time::Duration;

use crate::error::RegistryError;
use crate::settings::{HostSettings, ProxySettings, RegistrySettings};
use crate::tls;

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes and keeps clients.
pub(crate) struct Transport {
    user_agent: String,
    proxy: ProxySettings,
    idle_per_host: usize,
    clients: Mutex<HashMap<ClientKey, reqwest::Client>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    /// The host whose certificates are used; empty for hosts that have none of their own.
    host: String,
    insecure: bool,
}

impl Transport {
    pub(crate) fn new(settings: &RegistrySettings) -> Self {
        Self {
            user_agent: settings.user_agent.clone(),
            proxy: settings.proxy.clone(),
            idle_per_host: settings.connections_per_host + 1,
            clients: Mutex::default(),
        }
    }

    /// The client for a host with these settings.
    pub(crate) fn client(
        &self,
        host: &str,
        settings: Option<&HostSettings>,
        insecure: bool,
    ) -> Result<reqwest::Client, RegistryError> {
        let own_certificates = settings.is_some_and(|settings| {
            !settings.root_cas.is_empty()
                || !settings.key_pairs.is_empty()
                || !settings.tls_config_dirs.is_empty()
        });
        let key =
            ClientKey { host: if own_certificates { host.to_owned() } else { String::new() }, insecure };
        if let Some(client) = self.clients.lock().expect("no panic while held").get(&key) {
            return Ok(client.clone());
        }
        let config = tls::client_config(settings.unwrap_or(&HostSettings::default()), insecure)?;
        let client = self.build(config)?;
        self.clients.lock().expect("no panic while held").insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, tls: rustls::ClientConfig) -> Result<reqwest::Client, RegistryError> {
        let setup = |error: reqwest::Error| RegistryError::Setup(cause(&error));
        let mut builder = reqwest::Client::builder()
            .user_agent(&self.user_agent)
            .tls_backend_preconfigured(tls)
            // HTTP/1.1: layers travel on connections of their own, which is faster than streams that
            // share the window of one, and is what the original does.
            .http1_only()
            // Blobs are compressed by their own means; a body must arrive as its digest says.
            .no_gzip()
            // Redirects are followed by hand, so that credentials never leave their host.
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(self.idle_per_host)
            .no_proxy();
        let direct = self.proxy.no_proxy.as_deref().and_then(reqwest::NoProxy::from_string);
        if let Some(address) = &self.proxy.http {
            builder = builder.proxy(reqwest::Proxy::http(address).map_err(setup)?.no_proxy(direct.clone()));
        }
        if let Some(address) = &self.proxy.https {
            builder = builder.proxy(reqwest::Proxy::https(address).map_err(setup)?.no_proxy(direct));
        }
        builder.build().map_err(setup)
    }
}

/// The reason at the bottom of an error's chain, where the system's own words are.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    // The layers of the HTTP client wrap each other's words; the last two say what there is to say.
    let start = texts.len().saturating_sub(2);
    let mut told = texts.split_off(start);
    told.dedup();
    match told.as_slice() {
        [] => error.to_string(),
        [outer, inner] if outer.contains(inner.as_str()) => outer.clone(),
        _ => told.join(": "),
    }
}

/// Whether a TLS handshake failed because the peer does not speak TLS at all.
pub(crate) fn is_not_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return matches!(error, rustls::Error::InvalidMessage(_));
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>()
            && let Some(inner) = error.get_ref()
        {
            next = Some(inner);
            continue;
        }
        next = error.source();
    }
    false
}
