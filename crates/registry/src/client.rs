//! The client's three levels: the daemon's, a build's, and a repository's.

use std::sync::Arc;

use kiln_oci::Reference;

use crate::auth::{Authorizer, Credentials, Scopes, SessionAuth};
use crate::endpoint::{Endpoint, endpoints};
use crate::error::{Access, RegistryError};
use crate::limits::{Limits, Permit};
use crate::observer::{NoObserver, Observer};
use crate::request::Sender;
use crate::settings::RegistrySettings;
use crate::transport::Transport;

/// What a whole daemon shares: connections, tokens, limits. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RegistrySettings,
    transport: Transport,
    authorizer: Authorizer,
    limits: Limits,
    /// Apart from the others: what is uploaded may have to be downloaded for it, from the same host even.
    uploads: Limits,
}

impl Registry {
    /// A client with these settings; nothing is contacted or read yet.
    pub fn new(settings: RegistrySettings) -> Result<Self, RegistryError> {
        Ok(Self {
            shared: Arc::new(Shared {
                transport: Transport::new(&settings),
                authorizer: Authorizer::new()?,
                limits: Limits::new(settings.connections_per_host),
                uploads: Limits::new(settings.connections_per_host),
                settings,
            }),
        })
    }

    /// The client of one build, which asks with these credentials.
    pub fn client(&self, credentials: Arc<dyn Credentials>) -> Client {
        Client { shared: self.shared.clone(), session: Arc::new(SessionAuth::new(credentials)) }
    }
}

/// A build's view of all registries. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    session: Arc<SessionAuth>,
}

/// How a repository is used.
#[derive(Clone)]
pub struct RepositoryOptions {
    /// Whether it is written to.
    pub access: Access,
    /// Don't check certificates, and use plain http where TLS is not spoken, whatever is configured.
    pub insecure: bool,
    /// Who hears of retries.
    pub observer: Arc<dyn Observer>,
}

impl Default for RepositoryOptions {
    fn default() -> Self {
        Self { access: Access::Pull, insecure: false, observer: Arc::new(NoObserver) }
    }
}

impl RepositoryOptions {
    /// For writing.
    pub fn push() -> Self {
        Self { access: Access::Push, ..Self::default() }
    }
}

impl Client {
    /// The repository of a reference; its tag and digest don't matter.
    pub fn repository(
        &self,
        reference: &Reference,
        options: RepositoryOptions,
    ) -> Result<Repository, RegistryError> {
        let shared = &self.shared;
        let endpoints = endpoints(reference.domain(), options.insecure, &shared.settings, &shared.transport)?;
        Ok(Repository {
            client: self.clone(),
            name: reference.clone().without_tag_and_digest(),
            endpoints: endpoints.into(),
            access: options.access,
            observer: options.observer,
        })
    }
}

/// One repository of one registry (and its mirrors). Cheap to clone.
#[derive(Clone)]
pub struct Repository {
    client: Client,
    name: Reference,
    endpoints: Arc<[Endpoint]>,
    access: Access,
    observer: Arc<dyn Observer>,
}

impl Repository {
    /// Domain and path.
    pub fn name(&self) -> &Reference {
        &self.name
    }

    /// The same repository with another listener.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    pub(crate) fn access(&self) -> Access {
        self.access
    }

    pub(crate) fn observer(&self) -> &Arc<dyn Observer> {
        &self.observer
    }

    /// The wait before the first further try of something that failed.
    pub(crate) fn retry_wait(&self) -> std::time::Duration {
        self.client.shared.settings.retry_wait
    }

    /// The servers to read from, mirrors first.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The server to write to.
    pub(crate) fn origin(&self) -> &Endpoint {
        self.endpoints.last().expect("there is always the registry itself")
    }

    pub(crate) fn sender<'a>(&'a self, endpoint: &'a Endpoint) -> Sender<'a> {
        Sender { authorizer: &self.client.shared.authorizer, session: &self.client.session, endpoint }
    }

    /// The header for a request that cannot be repeated.
    pub(crate) async fn authorization(&self, endpoint: &Endpoint) -> Result<Option<String>, RegistryError> {
        let shared = &self.client.shared;
        let found =
            shared.authorizer.authorize(&self.client.session, endpoint, &self.scopes(), false).await?;
        Ok(found.map(|found| found.header))
    }

    pub(crate) fn scopes(&self) -> Scopes {
        Scopes::repository(self.name.path(), self.access)
    }

    pub(crate) async fn permit(&self, document: bool) -> Permit {
        self.client.shared.limits.acquire(self.name.domain(), document).await
    }

    /// A place for an upload, which never stands in the way of a download.
    pub(crate) async fn upload_permit(&self, document: bool) -> Permit {
        self.client.shared.uploads.acquire(self.name.domain(), document).await
    }
}
