//! Sending a blob whose digest is not known when it starts.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{Method, StatusCode};
use kiln_oci::Digest;
use reqwest::{Response, Url};

use crate::body::BodyStream;
use crate::client::Repository;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::request::{Call, Payload, malformed, plain_url, unexpected};
use crate::transport::cause;

/// An upload in progress. What is not committed is thrown away by the registry some day; [`Upload::cancel`]
/// says so at once.
pub struct Upload {
    repository: Repository,
    endpoint: Endpoint,
    url: Url,
    foreign: bool,
}

impl Repository {
    /// Starts an upload.
    pub async fn start_upload(&self) -> Result<Upload, RegistryError> {
        let endpoint = self.origin();
        let url = endpoint.url(self.name().path(), "blobs/uploads/")?;
        let response =
            self.sender(endpoint).send(Call::new(Method::POST, url, self.scopes(), self.access())).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => self.continue_upload(&response),
            _ => Err(unexpected(&Method::POST, response).await),
        }
    }

    /// The upload that an answer says to continue elsewhere.
    pub(crate) fn continue_upload(&self, response: &Response) -> Result<Upload, RegistryError> {
        let endpoint = self.origin();
        let (url, foreign) = next_location(endpoint, response)?;
        Ok(Upload { repository: self.clone(), endpoint: endpoint.clone(), url, foreign })
    }
}

/// Where to go on, and whether that is a host which must not learn who asks.
fn next_location(endpoint: &Endpoint, response: &Response) -> Result<(Url, bool), RegistryError> {
    let fail = || malformed(&Method::POST, response.url(), "no place to upload to");
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(fail)?;
    let base = Url::parse(&format!("{}/", endpoint.origin())).map_err(|_| fail())?;
    let url = if location.starts_with('/') || location.contains("://") {
        base.join(location).map_err(|_| fail())?
    } else {
        Url::parse(&format!("{}://{location}", base.scheme())).map_err(|_| fail())?
    };
    if !matches!(url.scheme(), "http" | "https") || (base.scheme() == "https" && url.scheme() == "http") {
        return Err(fail());
    }
    let same =
        url.host_str() == base.host_str() && url.port_or_known_default() == base.port_or_known_default();
    Ok((url, !same))
}

impl Upload {
    fn call<'a>(&self, method: Method, url: Url) -> Call<'a> {
        let mut call = Call::new(method, url, self.repository.scopes(), self.repository.access());
        call.foreign = self.foreign;
        call
    }

    /// Sends content to the end of `stream` in one request. It cannot be repeated: on an error the upload is
    /// lost.
    pub async fn send(&mut self, stream: BodyStream) -> Result<(), RegistryError> {
        // Streams can be sent only once, so the proof of who asks has to be good at the first try: it was
        // when the upload started.
        let authorization =
            if self.foreign { None } else { self.repository.authorization(&self.endpoint).await? };
        let mut request = self
            .endpoint
            .client
            .patch(self.url.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap_stream(stream));
        if let Some(header) = authorization {
            request = request.header(AUTHORIZATION, header);
        }
        let response = request.send().await.map_err(|error| RegistryError::Connect {
            method: "Patch".to_owned(),
            url: plain_url(&self.url),
            reason: cause(&error),
        })?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::CREATED => {
                (self.url, self.foreign) = next_location(&self.endpoint, &response)?;
                Ok(())
            }
            _ => Err(unexpected(&Method::PATCH, response).await),
        }
    }

    /// Sends known bytes, as often as it takes.
    pub async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), RegistryError> {
        let call = self
            .call(Method::PATCH, self.url.clone())
            .payload(Payload::Bytes("application/octet-stream", bytes));
        let response = self.repository.sender(&self.endpoint).send(call).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::CREATED => {
                (self.url, self.foreign) = next_location(&self.endpoint, &response)?;
                Ok(())
            }
            _ => Err(unexpected(&Method::PATCH, response).await),
        }
    }

    /// Ends the upload: what was sent is the blob with this digest.
    pub async fn commit(self, digest: &Digest) -> Result<(), RegistryError> {
        self.put(digest, Payload::None).await
    }

    /// Sends all that is left and ends the upload, in one request.
    pub(crate) async fn put(self, digest: &Digest, payload: Payload<'_>) -> Result<(), RegistryError> {
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("digest", digest.as_str());
        let call = self.call(Method::PUT, url).payload(payload);
        let response = self.repository.sender(&self.endpoint).send(call).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => {
                crate::push::check_stored(&self.endpoint, &response, digest)
            }
            _ => Err(unexpected(&Method::PUT, response).await),
        }
    }

    /// Gives the upload up.
    pub async fn cancel(self) {
        let call = self.call(Method::DELETE, self.url.clone());
        if let Err(error) = self.repository.sender(&self.endpoint).send(call).await {
            tracing::debug!(%error, "an upload could not be cancelled");
        }
    }
}
