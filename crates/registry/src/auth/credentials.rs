//! Where logins come from.

use std::fmt;

use async_trait::async_trait;

/// A password or token. It cannot be printed and is only read where it is sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(none)" } else { "Secret(…)" })
    }
}

/// A login for one host. With both empty it is nobody's; with only a secret, that is a refresh token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// The password or refresh token.
    pub secret: Secret,
}

/// What a token is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// How the client names itself to the token server.
    pub client_id: String,
    /// The registry's host.
    pub host: String,
    /// The token server's address.
    pub realm: String,
    /// The name of the service that the token is for.
    pub service: String,
    /// What the token shall allow, `repository:name:actions` each.
    pub scopes: Vec<String>,
}

/// A bearer token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// The token itself.
    pub token: Secret,
    /// For how many seconds it holds; 0: not said.
    pub expires_in: i64,
}

/// Why a session's credentials could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CredentialsError {
    /// What the session said.
    pub message: String,
    /// The cause, if there is one.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl CredentialsError {
    /// An error with only a text.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None }
    }
}

/// Where logins come from: the sessions of one build.
///
/// An implementation that has no session left, or one whose client does not know a call, answers with
/// nothing rather than with an error: the registry is then asked as nobody.
///
/// A client may keep its logins to itself and fetch tokens on its own. It then shows a public key that is
/// derived from the login and the daemon's `salt`: the same login gives the same key, so that builds of the
/// same user share tokens, and a signature proves that a client really has the key.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The login for `host` (with its port); empty for nobody.
    async fn login(&self, host: &str) -> Result<Login, CredentialsError>;

    /// The public key (Ed25519) of a client that fetches tokens itself; `None` where it does not.
    async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<[u8; 32]>, CredentialsError> {
        let _ = (host, salt);
        Ok(None)
    }

    /// Signs `payload` with the key that belongs to [`Self::token_authority`]: 64 bytes of signature, then
    /// the payload. `None` where the client does not do so.
    async fn verify_token_authority(
        &self,
        host: &str,
        salt: &[u8],
        payload: &[u8],
    ) -> Result<Option<Vec<u8>>, CredentialsError> {
        let _ = (host, salt, payload);
        Ok(None)
    }

    /// Fetches a token; only called after [`Self::token_authority`] gave a key.
    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token, CredentialsError> {
        Err(CredentialsError::new(format!("tokens for {} cannot be fetched by this client", request.host)))
    }
}

/// Nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnonymousCredentials;

#[async_trait]
impl Credentials for AnonymousCredentials {
    async fn login(&self, _host: &str) -> Result<Login, CredentialsError> {
        Ok(Login::default())
    }
}
