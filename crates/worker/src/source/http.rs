//! Files over HTTP as sources: known by their content, asked for again only if the server says that they changed.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use kiln_oci::{Digest, Hasher};
use kiln_session::daemon::SessionGroup;
use kiln_solver::Progress;
use kiln_store::{CommitInfo, LayerMeta, Ref};
use serde::{Deserialize, Serialize};

use super::http_fetch::{HttpAnswer, HttpBody, HttpMeta, HttpRequest, file_name};
use super::identifier::HttpId;
use crate::Worker;
use crate::context::BuildContext;
use crate::encode::{Encoder, Hash, digest_of};
use crate::error::{Error, Result};
use crate::path;
use crate::transfer::Task;

/// Host under which clients offer what they upload.
const SESSION_HOST: &str = "buildkit-session";
/// Secrets that log in at a host without being named.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";
/// Among the values of a file's ref.
const VALUE_KEY: &str = "http";

/// What can be said of a file without its bytes.
#[derive(Clone, Debug)]
pub struct HttpMetadata {
    pub digest: Digest,
    pub filename: String,
    /// Seconds since 1970, if the server said so.
    pub last_modified: Option<i64>,
}

/// A file that was asked for, and is here already unless its checksum said all there was to know.
pub struct FetchedFile {
    pub metadata: HttpMetadata,
    reference: Option<Ref>,
}

impl FetchedFile {
    pub fn digest(&self) -> &Digest {
        &self.metadata.digest
    }
}

/// What is kept with a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    digest: Digest,
    etag: String,
    filename: String,
    last_modified: Option<i64>,
}

impl HttpId {
    /// Key of the file with all that it will have on disk.
    pub(crate) fn key(&self, file: &FetchedFile) -> Hash {
        let mut encoder = Encoder::new("kiln.source.http.v1");
        encoder.str(&file.metadata.filename).u32(self.mode).u32(self.uid).u32(self.gid);
        encoder.str(file.metadata.digest.as_str());
        encoder.option(file.metadata.last_modified, |encoder, seconds| {
            encoder.i64(seconds);
        });
        self.encode_request(&mut encoder);
        encoder.finish()
    }

    /// Name under which the answers to this very request are kept.
    fn topic(&self) -> String {
        let mut encoder = Encoder::new("kiln.source.http.request.v1");
        encoder.str(&self.url).str(&self.filename).u32(self.mode).u32(self.uid).u32(self.gid);
        self.encode_request(&mut encoder);
        format!("http:{}", digest_of(encoder.finish()))
    }

    fn encode_request(&self, encoder: &mut Encoder) {
        encoder.str(&self.auth_header_secret).list(self.headers.iter(), |encoder, (name, value)| {
            encoder.str(name).str(value);
        });
    }

    fn host(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        }
    }

    fn check(&self, actual: &Digest) -> Result<()> {
        match &self.checksum {
            Some(expected) if expected != actual => {
                Err(Error::Text(format!("digest mismatch for {}: {actual} (expected: {expected})", self.url)))
            }
            _ => Ok(()),
        }
    }
}

impl Worker {
    /// Finds out which bytes a file has: by its checksum, else by asking for it.
    pub(crate) async fn resolve_http(
        &self,
        id: &HttpId,
        build: &BuildContext,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<FetchedFile> {
        if let Some(digest) = &id.checksum {
            let filename = file_name(&id.filename, &id.url, &HttpMeta::default());
            let filename = path::safe_file_name(&filename).to_owned();
            let metadata = HttpMetadata { digest: digest.clone(), filename, last_modified: None };
            return Ok(FetchedFile { metadata, reference: None });
        }
        // Asked for once in a build: its steps agree on what the file is.
        let mut fetched = None;
        let ask = async {
            let (reference, kept) = self.fetch_http(id, sessions, progress).await?;
            fetched = Some(reference);
            Ok(serde_json::to_string(&kept).expect("plain fields are JSON"))
        };
        let text = build.resolve_once(&id.topic(), ask).await?;
        let kept: Kept = serde_json::from_str(&text).map_err(|error| Error::Text(error.to_string()))?;
        let reference = match fetched {
            Some(reference) => Some(reference),
            None => self
                .kept_files(id)?
                .into_iter()
                .find(|(_, known)| known.digest == kept.digest)
                .map(|(r, _)| r),
        };
        let Kept { digest, filename, last_modified, .. } = kept;
        Ok(FetchedFile { metadata: HttpMetadata { digest, filename, last_modified }, reference })
    }

    /// The file.
    pub(crate) async fn http_ref(
        &self,
        id: &HttpId,
        file: &FetchedFile,
        _build: &BuildContext,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<Ref> {
        if let Some(reference) = &file.reference {
            return Ok(reference.clone());
        }
        let (reference, kept) = self.fetch_http(id, sessions, progress).await?;
        id.check(&kept.digest)?;
        if kept.digest != file.metadata.digest {
            return Err(Error::Text(format!("digest mismatch {}: {}", kept.digest, file.metadata.digest)));
        }
        Ok(reference)
    }

    fn kept_files(&self, id: &HttpId) -> Result<Vec<(Ref, Kept)>> {
        let found = self.store().values().refs(&id.topic())?;
        Ok(found
            .into_iter()
            .filter_map(|(reference, _, value)| Some((reference, serde_json::from_slice(&value).ok()?)))
            .collect())
    }

    async fn fetch_http(
        &self,
        id: &HttpId,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<(Ref, Kept)> {
        if id.host() == SESSION_HOST {
            return self.receive_upload(id, sessions, progress).await;
        }
        let known = self.kept_files(id)?;
        let request = HttpRequest {
            url: id.url.clone(),
            authorization: self.http_authorization(id, sessions).await?,
            headers: id.headers.clone(),
            known_etags: known
                .iter()
                .map(|(_, kept)| kept.etag.clone())
                .filter(|etag| !etag.is_empty())
                .collect(),
        };
        let same = |meta: &HttpMeta, kept: &Kept| match meta.etag.as_deref().map(strong) {
            Some(etag) => strong(&kept.etag) == etag,
            // A server that sends no tag means the only one it was asked about.
            None => meta.not_modified && request.known_etags == [kept.etag.as_str()],
        };
        if !request.known_etags.is_empty()
            && let Some(meta) = self.http().head(&request).await?
            && let Some(found) = known.iter().position(|(_, kept)| same(&meta, kept))
        {
            return Ok(known.into_iter().nth(found).expect("the place is inside the list"));
        }
        match self.http().get(&request).await? {
            HttpAnswer::NotModified(meta) => {
                let found = known.into_iter().find(|(_, kept)| same(&meta, kept));
                let etag = meta.etag.as_deref().map(strong);
                found.ok_or_else(|| {
                    Error::Text(format!("invalid not-modified ETag: {}", etag.unwrap_or_default()))
                })
            }
            HttpAnswer::Body(meta, body) => self.save_http(id, meta, body, progress).await,
        }
    }

    async fn receive_upload(
        &self,
        id: &HttpId,
        sessions: &SessionGroup,
        progress: &Progress,
    ) -> Result<(Ref, Kept)> {
        let rest = id.url.split_once("://").map_or("", |(_, rest)| rest);
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let body = sessions
            .any(self.sessions(), |caller| {
                let (host, path) = (host.to_owned(), path.to_owned());
                async move { caller.pull_upload(&host, &path).await }
            })
            .await?;
        let url = id.url.clone();
        let body = body.map(move |chunk| {
            chunk.map_err(|status| super::http_fetch::HttpError::Transfer {
                url: url.clone(),
                source: status.into(),
            })
        });
        self.save_http(id, HttpMeta::default(), body.boxed(), progress).await
    }

    /// A header that logs in: from the secret that the source names, or from those that are there for its host.
    async fn http_authorization(&self, id: &HttpId, sessions: &SessionGroup) -> Result<Option<String>> {
        let text = |secret: &kiln_session::daemon::Secret| {
            String::from_utf8_lossy(secret.reveal()).trim_end().to_owned()
        };
        if !id.auth_header_secret.is_empty() {
            let secret = self.secret(&id.auth_header_secret, false, sessions).await;
            let secret = secret.map_err(|error| {
                Error::Text(format!("failed to retrieve HTTP auth secret {}: {error}", id.auth_header_secret))
            })?;
            return Ok(secret.as_ref().map(text));
        }
        let host = id.host();
        if let Ok(Some(token)) = self.secret(&format!("{TOKEN_SECRET}{host}"), true, sessions).await {
            return Ok(Some(format!("Bearer {}", text(&token))));
        }
        let header = self.secret(&format!("{HEADER_SECRET}{host}"), true, sessions).await;
        Ok(header.ok().flatten().as_ref().map(text))
    }

    async fn save_http(
        &self,
        id: &HttpId,
        meta: HttpMeta,
        body: HttpBody,
        progress: &Progress,
    ) -> Result<(Ref, Kept)> {
        let name = file_name(&id.filename, &id.url, &meta);
        let name = path::safe_file_name(&name).to_owned();
        let last_modified = meta.last_modified.as_deref().and_then(http_date);
        let file = NewFile {
            name: name.clone(),
            mode: if id.mode == 0 { 0o600 } else { id.mode },
            uid: id.uid,
            gid: id.gid,
            mtime_s: last_modified.unwrap_or(0),
            description: format!("http url {}", id.url),
        };
        let body = body.map(|chunk| chunk.map_err(Error::from));
        let (reference, digest) = self.save_file(file, body, progress).await?;
        let etag = meta.etag.as_deref().map(strong).unwrap_or_default().to_owned();
        let kept = Kept { digest, etag, filename: name, last_modified };
        if !kept.etag.is_empty() {
            let value = serde_json::to_vec(&kept).expect("plain fields are JSON");
            self.store().values().set_for_ref(&reference, VALUE_KEY, &value, Some(&id.topic()))?;
        }
        Ok((reference, kept))
    }

    /// One file as a layer of its own, written as it comes.
    pub(super) async fn save_file(
        &self,
        file: NewFile,
        mut body: impl Stream<Item = Result<Bytes>> + Unpin,
        progress: &Progress,
    ) -> Result<(Ref, Digest)> {
        let task = Task::start(progress, format!("downloading {}", file.name));
        let layer = self.store().new_layer(&Ref::scratch(), LayerMeta::regular(file.description.clone()))?;
        let path = layer.dir().join(&file.name);
        let created = std::fs::File::options().write(true).create_new(true).open(&path);
        let mut out = created.map_err(Error::io("create", &file.name))?;
        let mut hasher = Hasher::sha256();
        let mut size = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            size += chunk.len() as u64;
            let name = file.name.clone();
            // Bytes are written and hashed away from the threads that wait for sockets.
            (out, hasher) = self
                .blocking(move || {
                    hasher.update(&chunk);
                    out.write_all(&chunk).map(|()| (out, hasher)).map_err(Error::io("write", name))
                })
                .await??;
            task.at(size);
        }
        let digest = hasher.finish();
        let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(file.mtime_s).unwrap_or(0));
        let failed = || Error::io("set attributes of", file.name.clone());
        std::os::unix::fs::fchown(&out, Some(file.uid), Some(file.gid)).map_err(failed())?;
        out.set_permissions(std::fs::Permissions::from_mode(file.mode & 0o7777)).map_err(failed())?;
        out.set_modified(time).map_err(failed())?;
        drop(out);
        let reference = self.blocking(move || layer.commit(CommitInfo::default())).await??;
        task.done(size);
        Ok((reference, digest))
    }
}

/// A file to be written.
pub(super) struct NewFile {
    pub name: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub description: String,
}

/// A tag without the mark that says "equal enough".
fn strong(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// Seconds since 1970 of a date as HTTP has it. Some servers call the zone `UTC`, which the standard does not.
fn http_date(text: &str) -> Option<i64> {
    let text = text.trim();
    let standard = text.strip_suffix("UTC").map(|date| format!("{date}GMT"));
    httpdate::parse_http_date(standard.as_deref().unwrap_or(text))
        .ok()?
        .duration_since(UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs().cast_signed())
}

#[cfg(test)]
mod tests {
    use super::http_date;

    #[test]
    fn dates_of_servers() {
        for text in [
            "Tue, 14 Nov 2023 22:13:21 GMT",
            "Tuesday, 14-Nov-23 22:13:21 GMT",
            "Tuesday, 14-Nov-23 22:13:21 UTC",
            "Tue Nov 14 22:13:21 2023",
        ] {
            assert_eq!(http_date(text), Some(1_700_000_001), "{text}");
        }
        assert_eq!(http_date("yesterday"), None);
    }
}
