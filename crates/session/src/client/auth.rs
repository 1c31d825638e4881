//! Credentials for the daemon.
//!
//! The client gives logins and leaves tokens to the daemon, as BuildKit's own client does when its tokens are switched off.

use std::sync::Arc;

use async_trait::async_trait;
use kiln_proto::filesync::auth_server::Auth;
use kiln_proto::filesync::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse, GetTokenAuthorityRequest,
    GetTokenAuthorityResponse, VerifyTokenAuthorityRequest, VerifyTokenAuthorityResponse,
};
use kiln_registry::Login;
use tonic::{Request, Response, Status};

/// Where logins come from.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// The login for a registry's host; an empty one for nobody.
    ///
    /// # Errors
    /// What the daemon shall show, when there should be a login and it cannot be had.
    async fn login(&self, host: &str) -> Result<Login, String>;
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
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(tokens_disabled())
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(tokens_disabled())
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(tokens_disabled())
    }
}

fn tokens_disabled() -> Status {
    Status::unavailable("client side tokens disabled")
}
