//! Credentials of the client, as the registry wants them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::filesync::auth_client::AuthClient;
use kiln_proto::filesync::{
    CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
};
use kiln_registry::{Credentials, CredentialsError, Login, Secret, Token, TokenRequest};

use super::{Caller, Error, SessionGroup, SessionManager};

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
const TOKEN_AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
const VERIFY_AUTHORITY: &str = "/moby.filesync.v1.Auth/VerifyTokenAuthority";
/// How long a client may think about one call: a credential helper may ask its user.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Logins from the sessions of a build.
#[derive(Clone)]
pub struct SessionCredentials {
    manager: SessionManager,
    group: SessionGroup,
}

impl SessionCredentials {
    pub fn new(manager: SessionManager, group: SessionGroup) -> SessionCredentials {
        SessionCredentials { manager, group }
    }

    /// Asks the sessions; `None` when none of them has such a call or none is left.
    async fn ask<T, F>(&self, ask: impl FnMut(Caller) -> F) -> Result<Option<T>, CredentialsError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let asked = tokio::time::timeout(CALL_TIMEOUT, self.group.any(&self.manager, ask)).await;
        match asked {
            Err(_) => {
                Err(CredentialsError::new("the client did not answer a question for credentials in time"))
            }
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(Error::NoSessions)) => Ok(None),
            Ok(Err(error)) if error.is_of_this_session_only() => Ok(None),
            Ok(Err(error)) => {
                Err(CredentialsError { message: error.to_string(), source: Some(Box::new(error)) })
            }
        }
    }
}

#[async_trait]
impl Credentials for SessionCredentials {
    async fn login(&self, host: &str) -> Result<Login, CredentialsError> {
        let answer = self
            .ask(|caller| async move {
                let mut client = AuthClient::new(caller.channel_for(CREDENTIALS)?);
                Ok(client.credentials(CredentialsRequest { host: host.to_owned() }).await?.into_inner())
            })
            .await?;
        Ok(answer.map_or_else(Login::default, |answer| Login {
            username: answer.username,
            secret: Secret::new(answer.secret),
        }))
    }

    async fn token_authority(&self, host: &str, salt: &[u8]) -> Result<Option<[u8; 32]>, CredentialsError> {
        let answer = self
            .ask(|caller| async move {
                let mut client = AuthClient::new(caller.channel_for(TOKEN_AUTHORITY)?);
                let request =
                    GetTokenAuthorityRequest { host: host.to_owned(), salt: Bytes::copy_from_slice(salt) };
                Ok(client.get_token_authority(request).await?.into_inner().public_key)
            })
            .await?;
        Ok(answer.and_then(|key| <[u8; 32]>::try_from(key.as_ref()).ok()))
    }

    async fn verify_token_authority(
        &self,
        host: &str,
        salt: &[u8],
        payload: &[u8],
    ) -> Result<Option<Vec<u8>>, CredentialsError> {
        let answer = self
            .ask(|caller| async move {
                let mut client = AuthClient::new(caller.channel_for(VERIFY_AUTHORITY)?);
                let request = VerifyTokenAuthorityRequest {
                    host: host.to_owned(),
                    salt: Bytes::copy_from_slice(salt),
                    payload: Bytes::copy_from_slice(payload),
                };
                Ok(client.verify_token_authority(request).await?.into_inner().signed)
            })
            .await?;
        Ok(answer.map(|signed| signed.to_vec()))
    }

    async fn fetch_token(&self, request: &TokenRequest) -> Result<Token, CredentialsError> {
        let answer = self
            .ask(|caller| async move {
                let mut client = AuthClient::new(caller.channel_for(FETCH_TOKEN)?);
                let request = FetchTokenRequest {
                    client_id: request.client_id.clone(),
                    host: request.host.clone(),
                    realm: request.realm.clone(),
                    service: request.service.clone(),
                    scopes: request.scopes.clone(),
                };
                Ok(client.fetch_token(request).await?.into_inner())
            })
            .await?;
        let answer =
            answer.ok_or_else(|| CredentialsError::new("no client is left that could fetch a token"))?;
        Ok(Token { token: Secret::new(answer.token), expires_in: answer.expires_in })
    }
}
