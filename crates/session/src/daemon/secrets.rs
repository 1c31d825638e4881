//! Secrets of the client.

use std::fmt;

use bytes::Bytes;
use kiln_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use kiln_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;

use super::{Caller, Error};

const METHOD: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// The largest secret, in bytes (BuildKit `session/secrets`).
const SECRET_BYTES_MAX: usize = 500 << 10;

/// The bytes of a secret. They cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Caller {
    /// A secret by its id.
    ///
    /// # Errors
    /// [`Error::SecretNotFound`] when the client has none of that id.
    pub async fn secret(&self, id: &str) -> Result<Secret, Error> {
        let mut client = SecretsClient::new(self.channel_for(METHOD)?);
        let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        match client.get_secret(request).await {
            Ok(answer) => {
                let data = answer.into_inner().data;
                if data.len() > SECRET_BYTES_MAX {
                    return Err(Error::SecretTooLarge { id: id.to_owned(), max: SECRET_BYTES_MAX });
                }
                Ok(Secret(data))
            }
            Err(status)
                if status.code() == tonic::Code::NotFound || status.code() == tonic::Code::Unimplemented =>
            {
                Err(Error::SecretNotFound(id.to_owned()))
            }
            Err(status) => Err(status.into()),
        }
    }
}
