//! Addresses of git repositories: URLs, and ssh in the form of scp (`user@host:path`).

/// A remote repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitUrl {
    /// `http`, `https`, `ssh` or `git`.
    pub scheme: String,
    /// User and password as they stand in the address; empty: none.
    pub user: String,
    /// Host, with the port if there is one.
    pub host: String,
    /// Path, decoded. Of the scp form: as it is, without a leading slash.
    pub path: String,
    /// Query parameters in the order in which their names first appear, decoded.
    pub query: Vec<(String, Vec<String>)>,
    /// What the fragment says, if there is one: `ref[:subdir]`.
    pub fragment: Option<GitFragment>,
    /// The address for git itself: without query and fragment.
    pub remote: String,
}

/// `ref[:subdir]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitFragment {
    /// Branch, tag or commit; empty: the default.
    pub reference: String,
    /// Directory in the repository, cleaned, without a leading slash; empty: all of it.
    pub subdir: String,
}

/// Why a text is no address of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GitUrlError {
    /// Neither URL nor scp form.
    #[error("unknown protocol")]
    UnknownProtocol,
    /// A URL of another protocol.
    #[error("{0}: invalid protocol")]
    InvalidProtocol(String),
    /// A URL that is none.
    #[error("parse {url:?}: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
}

const SCHEMES: [&str; 4] = ["http", "https", "ssh", "git"];

/// Reads an address.
pub fn parse(text: &str) -> Result<GitUrl, GitUrlError> {
    if let Some(scheme) = scheme(text) {
        let lower = scheme.to_ascii_lowercase();
        if !SCHEMES.contains(&lower.as_str()) {
            return Err(GitUrlError::InvalidProtocol(lower));
        }
        return parse_url(text, &lower, &text[scheme.len() + 3..])
            .map_err(|reason| GitUrlError::Url { url: text.to_string(), reason });
    }
    parse_scp(text).ok_or(GitUrlError::UnknownProtocol)
}

/// Whether git would be asked to reach `text` over one of its own transports.
pub fn is_git_transport(text: &str) -> bool {
    match scheme(text) {
        Some(scheme) => SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()),
        None => split_scp(text).is_some(),
    }
}

impl GitFragment {
    /// Reads `ref[:subdir]`; none for an empty text.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let (reference, subdir) = text.split_once(':').unwrap_or((text, ""));
        let subdir = crate::gopath::join(&["/", subdir]);
        Some(Self { reference: reference.to_string(), subdir: subdir[1..].to_string() })
    }
}

/// The letters and digits before `://`.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    (!scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(scheme)
}

fn parse_url(text: &str, scheme: &str, rest: &str) -> Result<GitUrl, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".into());
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if let Some(bad) = host.chars().find(|c| " \"<>\\^`{|}".contains(*c)) {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    if let Some((_, port)) = host.rsplit_once(':')
        && !host.ends_with(']')
        && !port.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(format!("invalid port {:?} after host", format!(":{port}")));
    }
    Ok(GitUrl {
        scheme: scheme.to_string(),
        user: user.to_string(),
        host: host.to_string(),
        path: decode(path, false)?,
        query: parse_query(query)?,
        fragment: GitFragment::parse(&decode(fragment, false)?),
        remote: format!("{scheme}://{rest}"),
    })
}

/// `user@host:path[?query][#fragment]`.
fn parse_scp(text: &str) -> Option<GitUrl> {
    let (user, host, rest) = split_scp(text)?;
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Some(GitUrl {
        scheme: "ssh".into(),
        user: user.to_string(),
        host: host.to_string(),
        path: path.to_string(),
        query: parse_query(query).ok()?,
        fragment: GitFragment::parse(fragment),
        remote: format!("{user}@{host}:{path}"),
    })
}

fn split_scp(text: &str) -> Option<(&str, &str, &str)> {
    let (user, rest) = text.split_once('@')?;
    let (host, rest) = rest.split_once(':')?;
    let word = |text: &str, more: &[u8]| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
    };
    (word(user, b"-_") && word(host, b"-.") && !rest.contains('\n')).then_some((user, host, rest))
}

fn parse_query(query: &str) -> Result<Vec<(String, Vec<String>)>, String> {
    let mut pairs: Vec<(String, Vec<String>)> = Vec::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        if part.contains(';') {
            return Err("invalid semicolon separator in query".into());
        }
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let (key, value) = (decode(key, true)?, decode(value, true)?);
        match pairs.iter_mut().find(|(name, _)| *name == key) {
            Some((_, values)) => values.push(value),
            None => pairs.push((key, vec![value])),
        }
    }
    Ok(pairs)
}

fn decode(text: &str, plus_is_space: bool) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let digits = bytes.get(at..at + 2).and_then(|pair| {
                    let digit = |b: u8| (b as char).to_digit(16);
                    Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)
                });
                match digits {
                    Some(value) => out.push(value),
                    None => {
                        let shown: String = text[at - 1..].chars().take(3).collect();
                        return Err(format!("invalid URL escape {shown:?}"));
                    }
                }
                at += 2;
            }
            b'+' if plus_is_space => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| "invalid UTF-8 in URL".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url =
            parse("https://user:pw@example.com:8443/a%20b.git?x=1&y=a+b&x=2#v1:sub/../dir").expect("parses");
        assert_eq!(url.scheme, "https");
        assert_eq!(
            (url.user.as_str(), url.host.as_str(), url.path.as_str()),
            ("user:pw", "example.com:8443", "/a b.git")
        );
        let x: (String, Vec<String>) = ("x".into(), vec!["1".into(), "2".into()]);
        assert_eq!(url.query, vec![x, ("y".into(), vec!["a b".into()])]);
        assert_eq!(url.fragment, Some(GitFragment { reference: "v1".into(), subdir: "dir".into() }));
        assert_eq!(url.remote, "https://user:pw@example.com:8443/a%20b.git");
    }

    #[test]
    fn scp_form() {
        let url = parse("git@example.com:a/b.git#main").expect("parses");
        assert_eq!(
            (url.scheme.as_str(), url.host.as_str(), url.path.as_str()),
            ("ssh", "example.com", "a/b.git")
        );
        assert_eq!(url.remote, "git@example.com:a/b.git");
        assert!(is_git_transport("git@example.com:a"));
    }

    #[test]
    fn what_is_none() {
        assert_eq!(parse("example.com/a.git"), Err(GitUrlError::UnknownProtocol));
        assert_eq!(parse("ftp://a/b"), Err(GitUrlError::InvalidProtocol("ftp".into())));
        assert!(parse("https://a/%zz").is_err());
        assert!(parse("https://a:b/").is_err());
        assert!(!is_git_transport("ftp://a"));
    }

    #[test]
    fn a_subdir_never_leaves_the_repository() {
        assert_eq!(GitFragment::parse(":../../etc").expect("is one").subdir, "etc");
    }
}
