//! Secrets for the daemon.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_proto::moby::buildkit::secrets::v1::secrets_server::Secrets;
use kiln_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use tonic::{Request, Response, Status};

/// The bytes of a secret, which cannot be printed.
pub struct SecretValue(pub Bytes);

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// Where secrets come from.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// A secret by its id; `None` when there is none.
    ///
    /// # Errors
    /// What the daemon shall show when a secret that is there cannot be read.
    async fn secret(&self, id: &str) -> Result<Option<SecretValue>, String>;
}

pub(super) struct Service(pub(super) Arc<dyn SecretSource>);

#[async_trait]
impl Secrets for Service {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        match self.0.secret(&id).await {
            Ok(Some(SecretValue(data))) => Ok(Response::new(GetSecretResponse { data })),
            Ok(None) => Err(Status::not_found(format!("secret {id} not found"))),
            Err(message) => Err(Status::unknown(message)),
        }
    }
}
