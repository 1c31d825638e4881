//! Reading: what a name stands for, and documents.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, StatusCode};
use kiln_oci::{Descriptor, Digest, detect_manifest_media_type, media_type};
use reqwest::Response;

use crate::client::Repository;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::request::{Call, malformed, unexpected};
use crate::retry::with_retries;
use crate::{DOCUMENT_BYTES_MAX, MANIFEST_BYTES_MAX};

/// All that a name may stand for.
const ACCEPT_MANIFESTS: &str = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*";

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// Its bytes, where they had to be fetched anyway; they have the descriptor's digest.
    pub manifest: Option<Bytes>,
}

impl Repository {
    /// Asks what a tag or digest stands for. Mirrors are asked first; the error shown is that of the host
    /// which got farthest.
    pub async fn resolve(&self, object: &str) -> Result<Resolved, RegistryError> {
        let digest = Digest::parse(object).ok();
        let _permit = self.permit(true).await;
        let digest = digest.as_ref();
        with_retries(self.retry_wait(), &**self.observer(), || {
            Box::pin(async move {
                let mut first: Option<RegistryError> = None;
                for endpoint in self.endpoints() {
                    match self.resolve_at(endpoint, object, digest).await {
                        Ok(resolved) => return Ok(resolved),
                        Err(error) => keep_farthest(&mut first, error)?,
                    }
                }
                Err(first.expect("there is always a host"))
            })
        })
        .await
    }

    async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        object: &str,
        digest: Option<&Digest>,
    ) -> Result<Resolved, RegistryError> {
        let response = self.request_manifest(endpoint, Method::HEAD, object, ACCEPT_MANIFESTS).await?;
        let media_type = content_type(&response);
        let size = content_length(&response);
        let told = header_digest(&response)?;
        if let (Some(asked), Some(told)) = (digest, &told)
            && asked != told
            && asked.algorithm() == told.algorithm()
        {
            return Err(mismatch(endpoint, asked, told));
        }
        let known = digest.cloned().or(told);
        match (known, size, media_type.as_str()) {
            (Some(digest), Some(size), media_type)
                if media_type::is_manifest(media_type) || media_type::is_index(media_type) =>
            {
                check_size(digest.as_str(), size, MANIFEST_BYTES_MAX)?;
                Ok(Resolved { descriptor: Descriptor::new(media_type, digest, size), manifest: None })
            }
            // The answer says too little: the manifest itself says the rest.
            (digest, ..) => {
                let response = self.request_manifest(endpoint, Method::GET, object, ACCEPT_MANIFESTS).await?;
                let media_type = content_type(&response);
                let bytes = read_body(response, object, endpoint, MANIFEST_BYTES_MAX).await?;
                let digest = match digest {
                    Some(digest) => {
                        check_digest(endpoint, &digest, &bytes)?;
                        digest
                    }
                    None => Digest::sha256_of(&bytes),
                };
                let media_type = if media_type::is_manifest(&media_type) || media_type::is_index(&media_type)
                {
                    media_type
                } else {
                    detect_manifest_media_type(&bytes)
                        .map_err(|source| RegistryError::Manifest { what: digest.to_string(), source })?
                };
                let descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
                Ok(Resolved { descriptor, manifest: Some(bytes) })
            }
        }
    }

    /// Fetches a manifest or index, checked against its digest.
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        check_size(descriptor.digest.as_str(), descriptor.size, MANIFEST_BYTES_MAX)?;
        let _permit = self.permit(true).await;
        with_retries(self.retry_wait(), &**self.observer(), || {
            Box::pin(async move {
                let mut first: Option<RegistryError> = None;
                for endpoint in self.endpoints() {
                    match self.manifest_at(endpoint, descriptor).await {
                        Ok(bytes) => return Ok(bytes),
                        Err(error) => keep_farthest(&mut first, error)?,
                    }
                }
                Err(first.expect("there is always a host"))
            })
        })
        .await
    }

    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        descriptor: &Descriptor,
    ) -> Result<Bytes, RegistryError> {
        let accept = format!("{}, */*", descriptor.media_type);
        let digest = &descriptor.digest;
        let response = self.request_manifest(endpoint, Method::GET, digest.as_str(), &accept).await?;
        let bytes = read_body(response, digest.as_str(), endpoint, MANIFEST_BYTES_MAX).await?;
        check_digest(endpoint, digest, &bytes)?;
        Ok(bytes)
    }

    /// Fetches a small blob, such as an image configuration, into memory, checked against its digest.
    pub async fn document(&self, descriptor: &Descriptor) -> Result<Bytes, RegistryError> {
        check_size(descriptor.digest.as_str(), descriptor.size, DOCUMENT_BYTES_MAX)?;
        if let Some(data) = descriptor.data.as_ref().filter(|data| descriptor.digest.matches(data)) {
            return Ok(Bytes::copy_from_slice(data));
        }
        let mut reader = self.blob_verified(descriptor).await?;
        let mut bytes = BytesMut::with_capacity(descriptor.size as usize);
        while let Some(piece) = reader.chunk().await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }

    pub(crate) async fn request_manifest(
        &self,
        endpoint: &Endpoint,
        method: Method,
        object: &str,
        accept: &str,
    ) -> Result<Response, RegistryError> {
        let url = endpoint.url(self.name().path(), &format!("manifests/{object}"))?;
        let call = Call::new(method.clone(), url, self.scopes(), self.access()).accept(accept);
        let response = self.sender(endpoint).send(call).await?;
        match response.status() {
            StatusCode::OK => Ok(response),
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound(self.full_name(object))),
            // HEAD has no body to tell why; GET may.
            StatusCode::FORBIDDEN if method == Method::HEAD => {
                let url = endpoint.url(self.name().path(), &format!("manifests/{object}"))?;
                let call = Call::new(Method::GET, url, self.scopes(), self.access()).accept(accept);
                let second = self.sender(endpoint).send(call).await?;
                let told = if second.status() == StatusCode::FORBIDDEN { second } else { response };
                Err(unexpected(&method, told).await)
            }
            _ => Err(unexpected(&method, response).await),
        }
    }

    /// The name with a tag or digest, for messages.
    pub(crate) fn full_name(&self, object: &str) -> String {
        let separator = if object.contains(':') { '@' } else { ':' };
        format!("{}{separator}{object}", self.name().name())
    }
}

/// Keeps the error that tells most; an error that no other host can help with is returned at once.
pub(crate) fn keep_farthest(
    first: &mut Option<RegistryError>,
    error: RegistryError,
) -> Result<(), RegistryError> {
    if !error.allows_next_host() {
        return Err(error);
    }
    if first.as_ref().is_none_or(|first| first.priority() < error.priority()) {
        *first = Some(error);
    }
    Ok(())
}

fn content_type(response: &Response) -> String {
    let value =
        response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

/// The announced length. Taken from the header, because a HEAD answer has no body to measure.
pub(crate) fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(crate) fn header_digest(response: &Response) -> Result<Option<Digest>, RegistryError> {
    let Some(value) = response.headers().get("Docker-Content-Digest") else { return Ok(None) };
    let parsed = value.to_str().ok().and_then(|value| Digest::parse(value).ok());
    match parsed {
        Some(digest) => Ok(Some(digest)),
        None => {
            Err(malformed(&Method::HEAD, response.url(), "its Docker-Content-Digest header is no digest"))
        }
    }
}

fn mismatch(endpoint: &Endpoint, expected: &Digest, actual: &Digest) -> RegistryError {
    RegistryError::DigestMismatch {
        host: endpoint.host.clone(),
        expected: expected.clone(),
        actual: actual.clone(),
    }
}

fn check_digest(endpoint: &Endpoint, digest: &Digest, bytes: &[u8]) -> Result<(), RegistryError> {
    let mut hasher = digest.hasher();
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *digest { Ok(()) } else { Err(mismatch(endpoint, digest, &actual)) }
}

fn check_size(what: &str, size: u64, max: u64) -> Result<(), RegistryError> {
    if size > max { Err(RegistryError::TooLarge { what: what.to_owned(), size, max }) } else { Ok(()) }
}

async fn read_body(
    mut response: Response,
    what: &str,
    endpoint: &Endpoint,
    max: u64,
) -> Result<Bytes, RegistryError> {
    let mut bytes = BytesMut::new();
    let url = response.url().clone();
    loop {
        let piece = response.chunk().await.map_err(|error| RegistryError::Connect {
            method: "Get".to_owned(),
            url: crate::request::plain_url(&url),
            reason: format!("reading from {}: {}", endpoint.host, crate::transport::cause(&error)),
        })?;
        let Some(piece) = piece else { return Ok(bytes.freeze()) };
        check_size(what, (bytes.len() + piece.len()) as u64, max)?;
        bytes.extend_from_slice(&piece);
    }
}
