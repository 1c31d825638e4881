//! Asking a token server.

use serde::Deserialize;
use tokio::time::Duration;

use super::credentials::{Login, Secret, Token};
use crate::error::RegistryError;
use crate::transport::cause;

/// How the client names itself to token servers.
pub(super) const CLIENT_ID: &str = "buildkit-client";
/// How long a token holds when its server does not say.
const DEFAULT_EXPIRY_S: i64 = 60;
/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Until a token server has to have answered.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where and for what to ask.
pub(super) struct TokenQuery<'a> {
    pub(super) host: &'a str,
    pub(super) realm: &'a str,
    pub(super) service: &'a str,
    pub(super) scopes: &'a [String],
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<i64>,
}

/// Fetches a token for this login; an empty one asks as nobody.
pub(super) async fn fetch(
    client: &reqwest::Client,
    query: &TokenQuery<'_>,
    login: &Login,
) -> Result<Token, RegistryError> {
    let kind = if login.secret.is_empty() { "anonymous" } else { "oauth" };
    let fail = |detail: String, transient: bool, refused: bool| RegistryError::Token {
        host: query.host.to_owned(),
        kind,
        detail,
        transient,
        refused,
    };
    let (status, body) = get(client, query, login).await.map_err(|detail| fail(detail, true, false))?;
    // Some servers only know the newer way of asking.
    let newer = match status.as_u16() {
        401 | 404 => true,
        405 => !login.username.is_empty(),
        _ => false,
    };
    let (method, status, body) = if newer && !login.secret.is_empty() {
        let (status, body) = post(client, query, login).await.map_err(|detail| fail(detail, true, false))?;
        ("POST", status, body)
    } else {
        ("GET", status, body)
    };
    if !status.is_success() {
        let refused = matches!(status.as_u16(), 401 | 403) && !login.secret.is_empty();
        let realm = query.realm.split('?').next().unwrap_or_default();
        let detail = format!("unexpected status from {method} request to {realm}: {status}");
        return Err(fail(detail, status.is_server_error(), refused));
    }
    let answer: Answer = serde_json::from_slice(&body)
        .map_err(|error| fail(format!("unable to decode token response: {error}"), false, false))?;
    let token = answer.access_token.filter(|t| !t.is_empty()).or(answer.token).unwrap_or_default();
    if token.is_empty() {
        return Err(fail(
            "authorization server did not include a token in the response".to_owned(),
            false,
            false,
        ));
    }
    Ok(Token { token: Secret::new(token), expires_in: answer.expires_in.unwrap_or(0) })
}

/// For how long to use a token: a little less than it holds.
pub(super) fn usable_for(token: &Token) -> Duration {
    let seconds = if token.expires_in > 0 { token.expires_in } else { DEFAULT_EXPIRY_S };
    Duration::from_secs(seconds.unsigned_abs()).mul_f64(0.9)
}

type RawAnswer = Result<(http::StatusCode, Vec<u8>), String>;

async fn get(client: &reqwest::Client, query: &TokenQuery<'_>, login: &Login) -> RawAnswer {
    let mut url = reqwest::Url::parse(query.realm).map_err(|error| format!("invalid realm: {error}"))?;
    {
        let mut pairs = url.query_pairs_mut();
        if !query.service.is_empty() {
            pairs.append_pair("service", query.service);
        }
        for scope in query.scopes {
            pairs.append_pair("scope", scope);
        }
    }
    let mut request = client.get(url);
    if !login.secret.is_empty() {
        request = request.basic_auth(&login.username, Some(login.secret.reveal()));
    }
    send(request).await
}

async fn post(client: &reqwest::Client, query: &TokenQuery<'_>, login: &Login) -> RawAnswer {
    let scope = query.scopes.join(" ");
    let mut fields = vec![("client_id", CLIENT_ID), ("scope", &scope), ("service", query.service)];
    if login.username.is_empty() {
        fields.extend([("grant_type", "refresh_token"), ("refresh_token", login.secret.reveal())]);
    } else {
        fields.extend([
            ("grant_type", "password"),
            ("username", login.username.as_str()),
            ("password", login.secret.reveal()),
        ]);
    }
    // The URL parser knows how to write a form; nothing of the address is used.
    let mut form = reqwest::Url::parse("http://form").expect("a constant address");
    form.query_pairs_mut().extend_pairs(fields);
    let request = client
        .post(query.realm)
        .header("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
        .body(form.query().unwrap_or_default().to_owned());
    send(request).await
}

async fn send(request: reqwest::RequestBuilder) -> RawAnswer {
    let exchange = async {
        let mut response = request.send().await.map_err(|error| cause(&error))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| cause(&error))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too long".to_owned());
            }
            body.extend_from_slice(&piece);
        }
        Ok((status, body))
    };
    tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err("timed out".to_owned()))
}
