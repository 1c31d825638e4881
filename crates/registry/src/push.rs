//! Writing: blobs and manifests.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use kiln_oci::{Descriptor, Digest};
use reqwest::Response;

use crate::auth::Scopes;
use crate::body::BlobSource;
use crate::client::Repository;
use crate::endpoint::Endpoint;
use crate::error::{Access, RegistryError};
use crate::observer::Observer;
use crate::pull::header_digest;
use crate::request::{Call, Payload, unexpected};
use crate::retry::with_retries;

/// Repositories that are worth remembering as the source of one blob.
pub const MOUNT_CANDIDATES_MAX: usize = 16;

/// How content came to be in the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// It was in a sister repository, whose name this is.
    Mounted(String),
    /// It was sent.
    Uploaded,
}

impl Repository {
    /// Whether the registry has this blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let endpoint = self.origin();
        let url = endpoint.url(self.name().path(), &format!("blobs/{digest}"))?;
        let call = Call::new(Method::HEAD, url, self.scopes(), self.access());
        let response = self.sender(endpoint).send(call).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(unexpected(&Method::HEAD, response).await),
        }
    }

    /// What the registry says of a blob of unknown size.
    pub async fn blob_info(&self, digest: &Digest) -> Result<Descriptor, RegistryError> {
        let endpoint = self.origin();
        let url = endpoint.url(self.name().path(), &format!("blobs/{digest}"))?;
        let call = Call::new(Method::HEAD, url, self.scopes(), self.access());
        let response = self.sender(endpoint).send(call).await?;
        match (response.status(), crate::pull::content_length(&response)) {
            (StatusCode::OK, Some(size)) => {
                Ok(Descriptor::new("application/octet-stream", digest.clone(), size))
            }
            (StatusCode::NOT_FOUND, _) => Err(RegistryError::NotFound(self.full_name(digest.as_str()))),
            _ => Err(unexpected(&Method::HEAD, response).await),
        }
    }

    /// Puts a blob into the repository: not at all if it is there, from a sister repository on the same
    /// registry if one of `mount_from` has it, else by sending it. Interrupted tries are repeated.
    pub async fn push_blob(
        &self,
        descriptor: &Descriptor,
        source: &dyn BlobSource,
        mount_from: &[String],
        observer: &Arc<dyn Observer>,
    ) -> Result<Pushed, RegistryError> {
        let _permit = self.upload_permit(kiln_oci::media_type::is_document(&descriptor.media_type)).await;
        let mount = best_mount_candidate(self.name().path(), mount_from);
        let pushed = with_retries(self.retry_wait(), &**observer, || {
            Box::pin(self.push_once(descriptor, source, mount, observer))
        })
        .await?;
        observer.progress(descriptor.size, descriptor.size);
        Ok(pushed)
    }

    async fn push_once(
        &self,
        descriptor: &Descriptor,
        source: &dyn BlobSource,
        mount: Option<&str>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Pushed, RegistryError> {
        match self.has_blob(&descriptor.digest).await {
            Ok(true) => return Ok(Pushed::Existed),
            Ok(false) => {}
            // Who may write need not be allowed to read.
            Err(error @ RegistryError::Denied { .. }) => {
                tracing::debug!(%error, "cannot see whether the blob exists");
            }
            Err(error) => return Err(error),
        }
        let response = match mount {
            Some(from) => self.request_mount(&descriptor.digest, from).await?,
            None => None,
        };
        let response = match response {
            Some(response) => response,
            None => self.request_upload().await?,
        };
        let upload = match response.status() {
            StatusCode::CREATED => return Ok(Pushed::Mounted(mount.unwrap_or_default().to_owned())),
            StatusCode::ACCEPTED | StatusCode::OK | StatusCode::NO_CONTENT => {
                self.continue_upload(&response)?
            }
            _ => return Err(unexpected(&Method::POST, response).await),
        };
        let counting = Counting { source, total: descriptor.size, observer: observer.clone() };
        upload.put(&descriptor.digest, Payload::Source(&counting, descriptor.size)).await?;
        Ok(Pushed::Uploaded)
    }

    /// Asks to take a blob over from a sister repository. The registry may start an upload instead; `None`
    /// if it does not let us look there.
    async fn request_mount(&self, digest: &Digest, from: &str) -> Result<Option<Response>, RegistryError> {
        let endpoint = self.origin();
        let mut url = endpoint.url(self.name().path(), "blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        let mut scopes = self.scopes();
        scopes.merge(&Scopes::repository(from, Access::Pull));
        match self.sender(endpoint).send(Call::new(Method::POST, url, scopes, self.access())).await {
            Ok(response) => Ok(Some(response)),
            Err(error @ (RegistryError::Denied { .. } | RegistryError::Token { .. })) => {
                tracing::debug!(%error, from, "cannot mount a blob");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn request_upload(&self) -> Result<Response, RegistryError> {
        let endpoint = self.origin();
        let url = endpoint.url(self.name().path(), "blobs/uploads/")?;
        self.sender(endpoint).send(Call::new(Method::POST, url, self.scopes(), self.access())).await
    }

    /// Puts a manifest or index into the repository, under `tag` or, without one, under its digest.
    pub async fn push_manifest(
        &self,
        media_type: &str,
        bytes: Bytes,
        tag: Option<&str>,
    ) -> Result<Pushed, RegistryError> {
        let digest = Digest::sha256_of(&bytes);
        let object = tag.unwrap_or(digest.as_str());
        let endpoint = self.origin();
        let _permit = self.permit(true).await;
        let (digest, bytes) = (&digest, &bytes);
        with_retries(self.retry_wait(), &**self.observer(), || {
            Box::pin(async move {
                let accept = format!("{media_type}, */*");
                match self.request_manifest(endpoint, Method::HEAD, object, &accept).await {
                    Ok(response) if tag.is_none() || header_digest(&response)?.as_ref() == Some(digest) => {
                        return Ok(Pushed::Existed);
                    }
                    Ok(_) | Err(RegistryError::NotFound(_) | RegistryError::Denied { .. }) => {}
                    Err(error) => return Err(error),
                }
                let url = endpoint.url(self.name().path(), &format!("manifests/{object}"))?;
                let call = Call::new(Method::PUT, url, self.scopes(), self.access())
                    .payload(Payload::Bytes(media_type, bytes.clone()));
                let response = self.sender(endpoint).send(call).await?;
                match response.status() {
                    StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => {
                        check_stored(endpoint, &response, digest)?;
                        Ok(Pushed::Uploaded)
                    }
                    _ => Err(unexpected(&Method::PUT, response).await),
                }
            })
        })
        .await
    }
}

/// A registry that names another digest has stored something else.
pub(crate) fn check_stored(
    endpoint: &Endpoint,
    response: &Response,
    digest: &Digest,
) -> Result<(), RegistryError> {
    match header_digest(response)? {
        Some(told) if told.algorithm() == digest.algorithm() && told != *digest => {
            Err(RegistryError::DigestMismatch {
                host: endpoint.host.clone(),
                expected: digest.clone(),
                actual: told,
            })
        }
        _ => Ok(()),
    }
}

/// The sister repository that most likely may be read: the one that shares most of the path.
pub fn best_mount_candidate<'a>(target: &str, candidates: &'a [String]) -> Option<&'a str> {
    let shared =
        |candidate: &str| target.split('/').zip(candidate.split('/')).take_while(|(a, b)| a == b).count();
    candidates
        .iter()
        .map(String::as_str)
        .filter(|candidate| *candidate != target)
        .max_by_key(|candidate| shared(candidate))
}

/// Tells the observer how much of a source was taken.
struct Counting<'a> {
    source: &'a dyn BlobSource,
    total: u64,
    observer: Arc<dyn Observer>,
}

impl BlobSource for Counting<'_> {
    fn open(
        &self,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<crate::BodyStream>> + Send + '_>> {
        use futures::StreamExt;
        Box::pin(async move {
            let stream = self.source.open().await?;
            let (observer, total, mut sent) = (self.observer.clone(), self.total, 0);
            let counted = stream.inspect(move |piece| {
                if let Ok(piece) = piece {
                    sent += piece.len() as u64;
                    observer.progress(sent, total);
                }
            });
            Ok(counted.boxed() as crate::BodyStream)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::best_mount_candidate;

    #[test]
    fn mounts_from_the_nearest() {
        let candidates: Vec<String> = ["a/b/x", "c", "a/z", "a/b/c"].map(String::from).to_vec();
        assert_eq!(best_mount_candidate("a/b/c", &candidates), Some("a/b/x"));
        assert_eq!(best_mount_candidate("a/b/c", &candidates[3..]), None);
        assert_eq!(best_mount_candidate("q", &candidates[1..2]), Some("c"));
    }
}
