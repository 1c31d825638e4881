//! Credentials for the daemon.
//!
//! A client gives logins; or it keeps them and fetches tokens itself. Then it shows the daemon a public key that is derived from the
//! daemon's salt and, if there is a login, from a random seed that only this client has: equal keys are the same client with a login
//! for the same host, so that the daemon may share tokens between its builds.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::filesync::auth_server::Auth;
use kiln_proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use kiln_registry::{Login, Token, TokenRequest};
use ring::hmac;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tonic::{Request, Response, Status};

/// How long a token holds if its server does not say.
const EXPIRES_IN_SECONDS: i64 = 60;

/// Random bytes that a client keeps for one host. They cannot be printed.
#[derive(Clone)]
pub struct TokenSeed(Vec<u8>);

impl TokenSeed {
    /// Takes the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }
}

impl std::fmt::Debug for TokenSeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenSeed(…)")
    }
}

/// Where logins come from.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// The login for a registry's host; an empty one for nobody.
    ///
    /// # Errors
    /// What the daemon shall show, when there should be a login and it cannot be had.
    async fn login(&self, host: &str) -> Result<Login, String>;

    /// Whether tokens are fetched here, so that logins need not be given away.
    fn fetches_tokens(&self) -> bool {
        false
    }

    /// This client's seed for a host, the same each time; only asked if tokens are fetched here.
    ///
    /// # Errors
    /// What the daemon shall show.
    async fn token_seed(&self, host: &str) -> Result<TokenSeed, String> {
        Err(format!("no token seed for {host}"))
    }

    /// Fetches a token with the login for the request's host; only asked if tokens are fetched here.
    ///
    /// # Errors
    /// What the daemon shall show.
    async fn fetch_token(&self, request: TokenRequest) -> Result<Token, String> {
        Err(format!("no tokens for {}", request.host))
    }
}

pub(super) struct Service(pub(super) Arc<dyn CredentialSource>);

#[async_trait]
impl Auth for Service {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let login = self.0.login(&request.into_inner().host).await.map_err(Status::unknown)?;
        Ok(Response::new(CredentialsResponse {
            username: login.username,
            secret: login.secret.reveal().to_owned(),
        }))
    }

    async fn fetch_token(
        &self,
        request: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        self.require_tokens()?;
        let request = request.into_inner();
        let request = TokenRequest {
            client_id: request.client_id,
            host: request.host,
            realm: request.realm,
            service: request.service,
            scopes: request.scopes,
        };
        let token = self.0.fetch_token(request).await.map_err(Status::unknown)?;
        let expires_in = if token.expires_in == 0 { EXPIRES_IN_SECONDS } else { token.expires_in };
        let token = token.token.reveal().to_owned();
        Ok(Response::new(FetchTokenResponse { token, expires_in, issued_at: 0 }))
    }

    async fn get_token_authority(
        &self,
        request: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.key(&request.host, &request.salt).await?;
        let public_key = Bytes::copy_from_slice(key.public_key().as_ref());
        Ok(Response::new(GetTokenAuthorityResponse { public_key }))
    }

    async fn verify_token_authority(
        &self,
        request: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        let request = request.into_inner();
        let key = self.key(&request.host, &request.salt).await?;
        // As NaCl signs: the signature, then what was signed.
        let mut signed = key.sign(&request.payload).as_ref().to_vec();
        signed.extend_from_slice(&request.payload);
        Ok(Response::new(VerifyTokenAuthorityResponse { signed: signed.into() }))
    }
}

impl Service {
    fn require_tokens(&self) -> Result<(), Status> {
        if self.0.fetches_tokens() { Ok(()) } else { Err(tokens_disabled()) }
    }

    async fn key(&self, host: &str, salt: &[u8]) -> Result<Ed25519KeyPair, Status> {
        self.require_tokens()?;
        let login = self.0.login(host).await.map_err(Status::unknown)?;
        let seed = self.0.token_seed(host).await.map_err(Status::unknown)?;
        Ok(derive(salt, (!login.secret.is_empty()).then_some(&seed)))
    }
}

/// The key for a salt, with the client's seed if there is a login.
fn derive(salt: &[u8], seed: Option<&TokenSeed>) -> Ed25519KeyPair {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, salt));
    if let Some(seed) = seed {
        mac.update(&seed.0);
    }
    Ed25519KeyPair::from_seed_unchecked(mac.sign().as_ref()).expect("a SHA-256 is as long as a seed")
}

fn tokens_disabled() -> Status {
    Status::unavailable("client side tokens disabled")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from Go: `ed25519.NewKeyFromSeed(hmac_sha256(salt, seed))`.
    #[test]
    fn keys_are_those_of_other_clients() {
        let hex = |key: Ed25519KeyPair| -> String {
            key.public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let seed = TokenSeed::new(*b"0123456789abcdef");
        let without = "a7878eff9d42de4f00cb8529dd435d19412c60bc1526483e7c5c3e6325d7ab26";
        assert_eq!(hex(derive(b"salt", None)), without);
        let with = "cb2b23e95d35cbc6be6654c7853001ce3d8cd318c1b0f9d258afd6f51b7a8dfe";
        assert_eq!(hex(derive(b"salt", Some(&seed))), with);
        assert_eq!(format!("{seed:?}"), "TokenSeed(…)");
    }
}
