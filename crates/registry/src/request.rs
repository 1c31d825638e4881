//! One request with everything it takes: proof of who asks, redirects, waiting when asked to.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RANGE, RETRY_AFTER};
use http::{Method, StatusCode};
use reqwest::{Response, Url};
use tokio::time::Duration;

use crate::auth::{Authorizer, Challenge, Scopes, SessionAuth, parse_challenges};
use crate::body::BlobSource;
use crate::endpoint::Endpoint;
use crate::error::{Access, RegistryError};
use crate::transport::{cause, is_not_tls};

/// Hops from one address to the next.
const REDIRECTS_MAX: usize = 10;
/// Waits because the registry said that it is busy.
const BUSY_WAITS_MAX: usize = 3;
/// The longest such wait.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(30);
/// The wait if the registry does not say how long.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// The most of an error's body that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64_000;
/// Until an answer begins, after the request is sent. Registries may take minutes to put a large blob where
/// it belongs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// What is sent along.
pub(crate) enum Payload<'a> {
    None,
    /// Known bytes of this type.
    Bytes(&'a str, Bytes),
    /// So many bytes from a source.
    Source(&'a dyn BlobSource, u64),
}

/// A request that may be sent several times.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) accept: Option<String>,
    pub(crate) range_from: Option<u64>,
    pub(crate) payload: Payload<'a>,
    pub(crate) scopes: Scopes,
    pub(crate) access: Access,
    /// Send no proof of who asks: the address is not the registry's.
    pub(crate) foreign: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, url: Url, scopes: Scopes, access: Access) -> Self {
        Self {
            method,
            url,
            accept: None,
            range_from: None,
            payload: Payload::None,
            scopes,
            access,
            foreign: false,
        }
    }

    pub(crate) fn accept(mut self, accept: impl Into<String>) -> Self {
        self.accept = Some(accept.into());
        self
    }

    pub(crate) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }
}

/// Sends requests to one server in the name of one build.
pub(crate) struct Sender<'a> {
    pub(crate) authorizer: &'a Authorizer,
    pub(crate) session: &'a SessionAuth,
    pub(crate) endpoint: &'a Endpoint,
}

impl Sender<'_> {
    /// Sends a request until there is an answer other than "prove who you are", "look over there" and "come
    /// back later". Any other status is the caller's to judge.
    pub(crate) async fn send(&self, mut call: Call<'_>) -> Result<Response, RegistryError> {
        let mut busy_waits = 0;
        let mut challenged = 0;
        let mut renew = false;
        loop {
            let authorization = if call.foreign {
                None
            } else {
                self.authorizer.authorize(self.session, self.endpoint, &call.scopes, renew).await?
            };
            let header = authorization.as_ref().map(|authorization| authorization.header.as_str());
            let response = self.follow(&mut call, header).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED if !call.foreign => {
                    let final_answer = challenged > 0 && authorization.as_ref().is_none_or(|sent| sent.fresh);
                    let logged_in = authorization.as_ref().is_some_and(|sent| sent.logged_in);
                    let challenge = parse_challenges(response.headers()).into_iter().next();
                    let Some(challenge) = challenge.filter(|_| !final_answer && challenged < 3) else {
                        return Err(self.denied(&call, response, logged_in).await);
                    };
                    if let Challenge::Bearer { scope, .. } = &challenge {
                        call.scopes.add(scope);
                    }
                    self.authorizer.learn(self.endpoint, challenge);
                    challenged += 1;
                    renew = authorization.is_some();
                }
                // Some registries don't know HEAD for manifests.
                StatusCode::METHOD_NOT_ALLOWED
                    if call.method == Method::HEAD && call.url.path().contains("/manifests/") =>
                {
                    call.method = Method::GET;
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                    let asked = retry_after(&response);
                    let wait = asked.unwrap_or(BUSY_WAIT * 2u32.pow(busy_waits as u32));
                    if busy_waits >= BUSY_WAITS_MAX || wait > BUSY_WAIT_MAX {
                        let host = self.endpoint.host.clone();
                        return Err(RegistryError::RateLimited { host, retry_after: asked });
                    }
                    busy_waits += 1;
                    tokio::time::sleep(wait).await;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Sends the request where it leads. Only the first host learns who asks.
    async fn follow(
        &self,
        call: &mut Call<'_>,
        authorization: Option<&str>,
    ) -> Result<Response, RegistryError> {
        let mut url = call.url.clone();
        let mut trusted = true;
        for _ in 0..=REDIRECTS_MAX {
            let response = match self.once(call, &url, authorization.filter(|_| trusted)).await {
                Ok(response) => response,
                Err(error) if is_not_tls(&error) && self.endpoint.fall_back() => {
                    tracing::info!(
                        host = self.endpoint.host,
                        "the registry does not speak TLS, using plain http"
                    );
                    let plain = |url: &Url| {
                        let mut url = url.clone();
                        // Between http and https the parser always allows to change.
                        let _ = url.set_scheme("http");
                        url
                    };
                    call.url = plain(&call.url);
                    url = plain(&url);
                    self.once(call, &url, authorization.filter(|_| trusted))
                        .await
                        .map_err(|error| connect(&call.method, &url, &error))?
                }
                Err(error) => return Err(self.send_error(call, &url, error)),
            };
            let follows = match response.status().as_u16() {
                301..=303 => matches!(call.method, Method::GET | Method::HEAD),
                307 | 308 => true,
                _ => false,
            };
            if !follows {
                return Ok(response);
            }
            let target = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = target.and_then(|target| url.join(target).ok()).filter(|next| {
                // Never from TLS into the clear, and never to anything but the web.
                next.scheme() == "https" || (next.scheme() == "http" && url.scheme() == "http")
            });
            let Some(next) = next else {
                return Err(malformed(&call.method, &url, "a redirection to nowhere"));
            };
            trusted &= next.host_str() == url.host_str()
                && next.port_or_known_default() == url.port_or_known_default();
            url = next;
        }
        Err(malformed(&call.method, &url, "too many redirections"))
    }

    async fn once(
        &self,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<&str>,
    ) -> Result<Response, SendError> {
        let mut request = self.endpoint.client.request(call.method.clone(), url.clone());
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(accept) = &call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(from) = call.range_from.filter(|from| *from > 0) {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        request = match &call.payload {
            Payload::None if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) => {
                request.header(CONTENT_LENGTH, 0)
            }
            Payload::None => request,
            Payload::Bytes(media_type, bytes) => {
                request.header(CONTENT_TYPE, *media_type).body(bytes.clone())
            }
            Payload::Source(source, length) => {
                let stream = source.open().await.map_err(SendError::Source)?;
                request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .header(CONTENT_LENGTH, *length)
                    .body(reqwest::Body::wrap_stream(stream))
            }
        };
        // A source takes as long as it takes; what is waited for is the answer after it.
        if matches!(call.payload, Payload::Source(..)) {
            return request.send().await.map_err(SendError::Http);
        }
        match tokio::time::timeout(ANSWER_TIMEOUT, request.send()).await {
            Ok(sent) => sent.map_err(SendError::Http),
            Err(_) => Err(SendError::Timeout),
        }
    }

    fn send_error(&self, call: &Call<'_>, url: &Url, error: SendError) -> RegistryError {
        match error {
            SendError::Source(error) => RegistryError::Source(error),
            other => connect(&call.method, url, &other),
        }
    }

    async fn denied(&self, call: &Call<'_>, response: Response, logged_in: bool) -> RegistryError {
        let error = parse_challenges(response.headers()).into_iter().find_map(|challenge| match challenge {
            Challenge::Bearer { error, .. } if !error.is_empty() => Some(error),
            _ => None,
        });
        let body = error_detail(response).await;
        let mut detail = match error {
            Some(error) => format!("server message: {error}: authorization failed"),
            None => "authorization failed".to_owned(),
        };
        if !body.is_empty() {
            detail = format!("{detail}: {body}");
        }
        RegistryError::Denied { access: call.access, host: self.endpoint.host.clone(), logged_in, detail }
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Http(reqwest::Error),
    #[error("timed out waiting for an answer")]
    Timeout,
    #[error(transparent)]
    Source(std::io::Error),
}

fn connect(method: &Method, url: &Url, error: &SendError) -> RegistryError {
    let reason = match error {
        SendError::Http(error) => cause(error),
        other => other.to_string(),
    };
    RegistryError::Connect { method: go_method(method), url: plain_url(url), reason }
}

/// `HEAD` → `Head`, as Go's client names methods in its errors.
fn go_method(method: &Method) -> String {
    let name = method.as_str();
    format!("{}{}", &name[..1], name[1..].to_ascii_lowercase())
}

/// An address without what may be secret in it: user, password, and query.
pub(crate) fn plain_url(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

pub(crate) fn malformed(method: &Method, url: &Url, detail: &str) -> RegistryError {
    RegistryError::Malformed { method: method.to_string(), url: plain_url(url), detail: detail.to_owned() }
}

/// The error for a status that nobody expected.
pub(crate) async fn unexpected(method: &Method, response: Response) -> RegistryError {
    let (url, status) = (plain_url(response.url()), response.status());
    let detail = error_detail(response).await;
    RegistryError::Status { method: method.to_string(), url, status, detail }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What an error's body says: the messages of the specification's format, else nothing.
async fn error_detail(mut response: Response) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece[..piece.len().min(ERROR_BYTES_MAX - body.len())]);
        if body.len() >= ERROR_BYTES_MAX {
            break;
        }
    }
    let Ok(parsed) = serde_json::from_slice::<Errors>(&body) else { return String::new() };
    let messages: Vec<String> = parsed
        .errors
        .into_iter()
        .map(|one| {
            let code = one.code.to_lowercase().replace('_', " ");
            match (code.is_empty(), one.message.is_empty()) {
                (false, false) => format!("{code}: {}", one.message),
                (true, _) => one.message,
                (_, true) => code,
            }
        })
        .filter(|message| !message.is_empty())
        .collect();
    // The text comes from outside and goes to a terminal.
    messages.join(", ").chars().filter(|c| !c.is_control()).take(1000).collect()
}
