//! Reading `WWW-Authenticate`.

use std::collections::HashMap;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// How a server wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// With a token from elsewhere.
    Bearer {
        realm: String,
        service: String,
        scope: String,
        /// Why the token that was sent is none, such as `insufficient_scope`.
        error: String,
    },
    /// With name and password.
    Basic,
}

/// The challenges of an answer, tokens before passwords.
pub(crate) fn parse_challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(split_challenges)
        .filter_map(|(scheme, mut parameters)| match scheme.as_str() {
            "bearer" => {
                let mut take = |name: &str| parameters.remove(name).unwrap_or_default();
                let realm = take("realm");
                (!realm.is_empty()).then(|| Challenge::Bearer {
                    realm,
                    service: take("service"),
                    scope: take("scope"),
                    error: take("error"),
                })
            }
            "basic" => Some(Challenge::Basic),
            _ => None,
        })
        .collect();
    found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    found
}

/// `Scheme key=value, key="value", Scheme …` → schemes in lower case with their parameters.
fn split_challenges(header: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut found: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let (word, tail) = token(rest);
        if word.is_empty() {
            break;
        }
        match tail.strip_prefix('=') {
            Some(tail) => {
                let Some((value, tail)) = value(tail) else { break };
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.insert(word.to_ascii_lowercase(), value);
                }
                rest = tail;
            }
            None => {
                found.push((word.to_ascii_lowercase(), HashMap::new()));
                rest = tail;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

fn token(text: &str) -> (&str, &str) {
    let end =
        text.find(|c: char| !c.is_ascii_graphic() || "\"(),/:;<=>?@[]\\{}".contains(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string; `None` for a string without an end.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut out = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                out.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((out, &quoted[at + 1..])),
            _ => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&'static str]) -> Vec<Challenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_static(value));
        }
        parse_challenges(&headers)
    }

    fn bearer(realm: &str, service: &str, scope: &str, error: &str) -> Challenge {
        let [realm, service, scope, error] = [realm, service, scope, error].map(str::to_owned);
        Challenge::Bearer { realm, service, scope, error }
    }

    #[test]
    fn reads_what_registries_send() {
        assert_eq!(
            parse(&[
                r#"Bearer realm="https://auth.example/token",service="r",scope="repository:a/b:pull,push",error="invalid_token""#
            ]),
            [bearer("https://auth.example/token", "r", "repository:a/b:pull,push", "invalid_token")]
        );
        assert_eq!(parse(&[r#"Basic realm="Registry""#]), [Challenge::Basic]);
        assert_eq!(
            parse(&["Basic realm=x", r#"BEARER Realm="r\"q", Service = x"#]),
            [bearer("r\"q", "", "", ""), Challenge::Basic]
        );
        assert_eq!(
            parse(&[r#"Negotiate, Bearer realm="a", Basic realm="b""#]),
            [bearer("a", "", "", ""), Challenge::Basic]
        );
    }

    #[test]
    fn survives_nonsense() {
        for nonsense in [
            "",
            "=",
            "Bearer",
            "Bearer realm",
            r#"Bearer realm="x"#,
            "Bearer realm=\"\"",
            ",,,",
            "\"",
            "Bearer =x",
        ] {
            assert!(parse(&[nonsense]).is_empty(), "{nonsense}");
        }
    }
}
