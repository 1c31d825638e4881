//! Image references: `[domain/]path[:tag][@digest]`, with the short forms that people type written out.
//!
//! The grammar is the one of the distribution project; texts of errors are its texts too.

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

/// The domain of a reference that names none.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// The tag of a reference that has neither tag nor digest, where one is needed.
pub const DEFAULT_TAG: &str = "latest";

/// An old name of [`DEFAULT_DOMAIN`].
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
/// Where the default domain keeps the images with one-word names.
const OFFICIAL_PREFIX: &str = "library/";
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 255;
/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 128;

/// Why a text is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Characters or structure that no reference has.
    #[error("invalid reference format")]
    Format,
    /// Upper case letters in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// Upper case letters elsewhere in the name.
    #[error("repository name must be lowercase")]
    UppercaseName,
    /// The path has more than 255 characters.
    #[error("repository name must not be more than {PATH_BYTES_MAX} characters")]
    TooLong,
    /// 64 hexadecimal digits could be the id of an image, so they are no name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    Identifier(String),
    /// A tag with characters that no tag has.
    #[error("invalid tag format")]
    Tag,
    /// A digest that is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

/// An image reference with its domain and path written out.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference as people type it: `alpine` is `docker.io/library/alpine`. No tag is added.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let remote = remainder.split(':').next().unwrap_or_default();
        if remote.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase(remote.to_owned()));
        }
        Self::parse_full(&format!("{domain}/{remainder}"))
    }

    /// Reads a reference that is to be fetched: with the default tag where it has neither tag nor digest,
    /// and without its tag where it has a digest.
    pub fn parse_for_fetch(text: &str) -> Result<Self, ReferenceError> {
        let mut reference = Self::parse(text)?;
        if reference.digest.is_some() {
            reference.tag = None;
        }
        Ok(reference.with_default_tag())
    }

    fn parse_full(text: &str) -> Result<Self, ReferenceError> {
        match Self::parse_strict(text) {
            Err(ReferenceError::Format)
                if !matches!(Self::parse_strict(&text.to_lowercase()), Err(ReferenceError::Format)) =>
            {
                Err(ReferenceError::UppercaseName)
            }
            other => other,
        }
    }

    /// Reads `domain/remainder` with nothing implied.
    fn parse_strict(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        let (first, tail) = rest.split_once('/').ok_or(ReferenceError::Format)?;
        let (path, tag) = match tail.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (tail, None),
        };
        // What is no domain may still be the first part of a path.
        let (domain, path) = if is_domain(first) {
            (first.to_owned(), path.to_owned())
        } else {
            (String::new(), format!("{first}/{path}"))
        };
        let tag_holds = tag.is_none_or(is_tag);
        let digest_holds = digest.is_none_or(looks_like_digest);
        if !path.split('/').all(is_path_component) || !tag_holds || !digest_holds {
            return Err(ReferenceError::Format);
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(ReferenceError::TooLong);
        }
        let digest = digest.map(Digest::parse).transpose()?;
        Ok(Self { domain, path, tag: tag.map(str::to_owned), digest })
    }

    /// The registry's domain with its port, such as `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository's path below the domain, such as `library/alpine`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Domain and path, without tag and digest.
    pub fn name(&self) -> String {
        if self.domain.is_empty() { self.path.clone() } else { format!("{}/{}", self.domain, self.path) }
    }

    /// The tag, if there is one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether there is neither tag nor digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// The same with the default tag where there is neither tag nor digest.
    #[must_use]
    pub fn with_default_tag(mut self) -> Self {
        if self.is_name_only() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// The same with this tag.
    pub fn with_tag(mut self, tag: &str) -> Result<Self, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Tag);
        }
        self.tag = Some(tag.to_owned());
        Ok(self)
    }

    /// The same with this digest; a tag stays.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// Only domain and path.
    #[must_use]
    pub fn without_tag_and_digest(mut self) -> Self {
        self.tag = None;
        self.digest = None;
        self
    }

    /// What the distribution API calls the reference within its repository: the digest, else the tag.
    pub fn object(&self) -> Option<&str> {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref())
    }

    /// The name as people know it: without the default domain and its `library/`.
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL_PREFIX) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The whole reference as people know it.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest.as_str());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

/// Splits off the domain, which is there if the first part looks like one, and implies the default.
fn split_domain(text: &str) -> (&str, std::borrow::Cow<'_, str>) {
    use std::borrow::Cow;
    let Some((first, rest)) = text.split_once('/') else {
        return (DEFAULT_DOMAIN, Cow::Owned(format!("{OFFICIAL_PREFIX}{text}")));
    };
    let (domain, remote) = if first == LEGACY_DEFAULT_DOMAIN {
        (DEFAULT_DOMAIN, rest)
    } else if first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase) {
        (first, rest)
    } else {
        (DEFAULT_DOMAIN, text)
    };
    if domain == DEFAULT_DOMAIN && !remote.contains('/') {
        (domain, Cow::Owned(format!("{OFFICIAL_PREFIX}{remote}")))
    } else {
        (domain, Cow::Borrowed(remote))
    }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

/// A host name or bracketed IPv6 address with an optional port.
fn is_domain(text: &str) -> bool {
    let (host, port) = if text.starts_with('[') {
        let Some(end) = text.find(']') else { return false };
        let inner = &text[1..end];
        if inner.is_empty() || !inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        ("", &text[end + 1..])
    } else {
        match text.find(':') {
            Some(colon) if colon > 0 => text.split_at(colon),
            Some(_) => return false,
            None if text.is_empty() => return false,
            None => (text, ""),
        }
    };
    let host_holds = host.is_empty()
        || host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    let port_holds = match port.strip_prefix(':') {
        Some(digits) => !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()),
        None => port.is_empty(),
    };
    host_holds && port_holds
}

/// Lower case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !bytes.first().copied().is_some_and(alphanumeric) || !bytes.last().copied().is_some_and(alphanumeric) {
        return false;
    }
    bytes
        .split(|&b| alphanumeric(b))
        .filter(|run| !run.is_empty())
        .all(|separator| matches!(separator, b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(word)
        && bytes.len() <= TAG_BYTES_MAX
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

/// What the grammar of references takes for a digest, whether the algorithm is known or not.
fn looks_like_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    algorithm.split(['-', '_', '+', '.']).all(|part| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    }) && encoded.len() >= 32
        && encoded.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
