//! Fetching one file over HTTP, or finding that it is still the one from last time.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use kiln_registry::RegistryError;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_DISPOSITION, ETAG, HeaderMap, HeaderName, HeaderValue,
    IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Client, StatusCode};

/// Time to reach a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time without a byte from it.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Redirects that are followed.
const REDIRECTS_MAX: usize = 10;

/// What to fetch.
#[derive(Clone, Default)]
pub struct HttpRequest {
    pub url: String,
    /// Value of the `Authorization` header.
    pub authorization: Option<String>,
    /// Further headers; the caller has checked that a build may set them.
    pub headers: Vec<(String, String)>,
    /// Entity tags of what is here already, as servers gave them.
    pub known_etags: Vec<String>,
}

impl std::fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpRequest").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What a server said of a file, apart from its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpMeta {
    pub etag: Option<String>,
    /// Text of `Last-Modified`.
    pub last_modified: Option<String>,
    /// Name from `Content-Disposition`, without folders.
    pub disposition: Option<String>,
    /// Bytes to come, when the server said so.
    pub length: Option<u64>,
    /// Whether it is one of the files that were known.
    pub not_modified: bool,
}

/// A server's answer.
pub enum HttpAnswer {
    /// The file with this tag, which is among the known ones, has not changed.
    NotModified(HttpMeta),
    /// The file.
    Body(HttpMeta, HttpBody),
}

/// The bytes of a file, as they come.
pub type HttpBody = futures::stream::BoxStream<'static, Result<Bytes, HttpError>>;

#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("invalid response status {0}")]
    Status(u16),
    #[error("`{0}` is no address that can be fetched")]
    Address(String),
    #[error("header {0:?} cannot be sent")]
    Header(String),
    #[error("failed to fetch {url}")]
    Transfer { url: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// A client for sources, made when there is the first one: it keeps connections open between fetches.
pub struct HttpClient {
    user_agent: String,
    tls: fn() -> Result<rustls::ClientConfig, RegistryError>,
    client: OnceLock<Client>,
}

impl HttpClient {
    /// A client that names itself so.
    pub fn new(user_agent: String, tls: fn() -> Result<rustls::ClientConfig, RegistryError>) -> HttpClient {
        HttpClient { user_agent, tls, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Client, HttpError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let failed = |source| HttpError::Transfer { url: String::new(), source };
        let client = Client::builder()
            .user_agent(&self.user_agent)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
            // The bytes are kept as the server has them: an archive stays an archive.
            .no_gzip()
            .tls_backend_preconfigured((self.tls)().map_err(|error| failed(error.into()))?)
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Asks for a file.
    ///
    /// # Errors
    /// [`HttpError::Status`] for any answer but the file or "not modified".
    pub async fn get(&self, request: &HttpRequest) -> Result<HttpAnswer, HttpError> {
        let url = address(request)?;
        let shown = request.url.clone();
        let response = self.client()?.get(url).headers(headers(request)?).send().await.map_err(|error| {
            HttpError::Transfer { url: shown.clone(), source: error.without_url().into() }
        })?;
        let meta = meta(response.headers(), response.content_length());
        match response.status() {
            StatusCode::NOT_MODIFIED if !request.known_etags.is_empty() => {
                Ok(HttpAnswer::NotModified(HttpMeta { not_modified: true, ..meta }))
            }
            status if status.is_success() => {
                let body = response.bytes_stream().map(move |chunk| {
                    chunk.map_err(|error| HttpError::Transfer {
                        url: shown.clone(),
                        source: error.without_url().into(),
                    })
                });
                Ok(HttpAnswer::Body(meta, body.boxed()))
            }
            status => Err(HttpError::Status(status.as_u16())),
        }
    }

    /// What a server says of a file without sending it; nothing if it does not answer such a question.
    ///
    /// Servers that ignore `If-None-Match` would send the whole file again, though their tag says that it is the same.
    ///
    /// # Errors
    /// When the request cannot be made.
    pub async fn head(&self, request: &HttpRequest) -> Result<Option<HttpMeta>, HttpError> {
        let asked = self.client()?.head(address(request)?).headers(headers(request)?).send().await;
        let useful = |status| matches!(status, StatusCode::OK | StatusCode::NOT_MODIFIED);
        let answer = asked.ok().filter(|response| useful(response.status()));
        Ok(answer.map(|response| HttpMeta {
            not_modified: response.status() == StatusCode::NOT_MODIFIED,
            ..meta(response.headers(), None)
        }))
    }
}

fn address(request: &HttpRequest) -> Result<reqwest::Url, HttpError> {
    reqwest::Url::parse(&request.url)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .ok_or_else(|| HttpError::Address(request.url.clone()))
}

fn headers(request: &HttpRequest) -> Result<HeaderMap, HttpError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in &request.headers {
        let wrong = || HttpError::Header(name.clone());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        headers.insert(key, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    if let Some(authorization) = &request.authorization {
        let mut value = HeaderValue::from_str(authorization)
            .map_err(|_| HttpError::Header("authorization".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    if !request.known_etags.is_empty() {
        let tags = request.known_etags.join(", ");
        headers.insert(
            IF_NONE_MATCH,
            HeaderValue::from_str(&tags).map_err(|_| HttpError::Header("etag".to_owned()))?,
        );
    }
    Ok(headers)
}

fn meta(headers: &HeaderMap, length: Option<u64>) -> HttpMeta {
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).map(str::to_owned);
    HttpMeta {
        etag: text(ETAG),
        last_modified: text(LAST_MODIFIED),
        disposition: text(CONTENT_DISPOSITION).as_deref().and_then(disposition_name),
        length,
        not_modified: false,
    }
}

/// The file name of a `Content-Disposition` header (RFC 6266), without folders.
fn disposition_name(header: &str) -> Option<String> {
    let part = header.split(';').map(str::trim).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case("filename").then_some(value)
    })?;
    let name = part.trim().trim_matches('"');
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    (!matches!(name, "" | "." | "..")).then(|| name.to_owned())
}

/// Name for a downloaded file: what the build says, what the server says, the last part of the address, or `download`.
pub fn file_name(wanted: &str, url: &str, meta: &HttpMeta) -> String {
    if !wanted.is_empty() {
        return wanted.to_owned();
    }
    if let Some(name) = &meta.disposition {
        return name.clone();
    }
    let path = reqwest::Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
    match path.rsplit('/').next() {
        Some(name) if !matches!(name, "" | "." | "..") => name.to_owned(),
        _ => "download".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_folders() {
        assert_eq!(disposition_name("attachment; filename=\"../../x.tar\""), Some("x.tar".to_owned()));
        assert_eq!(disposition_name("attachment; filename=.."), None);
        let meta = HttpMeta::default();
        assert_eq!(file_name("", "http://h/a/b.tgz?x=1", &meta), "b.tgz");
        assert_eq!(file_name("", "http://h/", &meta), "download");
        assert_eq!(file_name("w", "http://h/a", &meta), "w");
    }

    #[test]
    fn a_login_is_not_shown() {
        let request = HttpRequest {
            url: "http://h".into(),
            authorization: Some("Basic c2VjcmV0".into()),
            ..Default::default()
        };
        assert!(!format!("{request:?}").contains("c2VjcmV0"));
    }
}
