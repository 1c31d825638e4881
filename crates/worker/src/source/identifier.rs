//! What a source vertex asks for: its identifier and attributes, read and checked.

use std::collections::BTreeMap;

use kiln_llb::{SourceOp, attrs, git_url};
use kiln_oci::{Digest, Platform, Reference};

use crate::path;

/// Why a source can't be understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentifierError {
    #[error("failed to parse {0}: invalid")]
    NoScheme(String),
    #[error("unknown scheme {0}: not found")]
    UnknownScheme(String),
    #[error("failed to parse image reference {reference:?}")]
    Reference {
        reference: String,
        #[source]
        source: kiln_oci::ReferenceError,
    },
    #[error("object required")]
    ObjectRequired,
    #[error("invalid resolvemode: {0}")]
    ResolveMode(String),
    #[error("invalid record type {0}")]
    RecordType(String),
    #[error("invalid layer limit {0}")]
    LayerLimit(String),
    #[error("invalid image checksum {0}")]
    ImageChecksum(String),
    #[error("invalid value {value:?} for {attribute}")]
    Value { attribute: String, value: String },
    #[error(transparent)]
    GitUrl(#[from] git_url::GitUrlError),
    #[error("invalid git ref {0:?}")]
    GitRef(String),
    #[error("{0}")]
    Contradiction(String),
    #[error("oci-layout blob source requires store id")]
    BlobStore,
    #[error("http signature verification requires both pubkey and signature")]
    HttpSignature,
}

/// A source.
#[derive(Clone, Debug)]
pub enum Identifier {
    Image(ImageId),
    OciLayout(OciLayoutId),
    Local(LocalId),
    Git(GitId),
    Http(HttpId),
    Blob(BlobId),
}

/// Where an image's manifest may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ResolveMode {
    /// The registry is asked; where it can't be, the local store.
    #[default]
    Default,
    /// The registry only.
    ForcePull,
    /// The local store, else the registry.
    PreferLocal,
}

impl ResolveMode {
    /// Reads the wire's word; empty is the default.
    ///
    /// # Errors
    /// Any other word.
    pub fn parse(text: &str) -> Result<ResolveMode, IdentifierError> {
        match text {
            "" | "default" => Ok(ResolveMode::Default),
            "pull" => Ok(ResolveMode::ForcePull),
            "local" => Ok(ResolveMode::PreferLocal),
            other => Err(IdentifierError::ResolveMode(other.to_owned())),
        }
    }
}

/// An image in a registry.
#[derive(Clone, Debug)]
pub struct ImageId {
    pub reference: Reference,
    pub platform: Platform,
    pub resolve_mode: ResolveMode,
    /// `regular`, `internal` or `frontend`; empty is the first.
    pub record_type: String,
    pub layer_limit: Option<usize>,
    pub checksum: Option<Digest>,
}

/// An image in an OCI layout of a client's.
#[derive(Clone, Debug)]
pub struct OciLayoutId {
    /// As given: it has a digest, its name means nothing here.
    pub reference: String,
    pub digest: Digest,
    pub platform: Platform,
    /// Empty: any session of the build.
    pub session: String,
    pub store: String,
    pub layer_limit: Option<usize>,
}

/// A directory of a client's.
#[derive(Clone, Debug, Default)]
pub struct LocalId {
    pub name: String,
    /// Empty: any session of the build.
    pub session: String,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub follow_paths: Vec<String>,
    pub shared_key_hint: String,
    /// Everything is sent, whatever is there.
    pub differ_none: bool,
    pub metadata_only: bool,
    pub metadata_exceptions: Vec<String>,
}

/// A git repository.
#[derive(Clone, Debug, Default)]
pub struct GitId {
    pub remote: String,
    /// Branch, tag or commit; empty: the remote's default.
    pub reference: String,
    pub checksum: String,
    pub subdir: String,
    pub keep_git_dir: bool,
    pub auth_token_secret: String,
    pub auth_header_secret: String,
    pub ssh_agent: String,
    pub known_hosts: String,
    pub skip_submodules: bool,
    /// Files are as old as the commit.
    pub mtime_of_commit: bool,
    pub fetch_by_commit: bool,
}

/// A file over HTTP.
#[derive(Clone, Debug, Default)]
pub struct HttpId {
    pub url: String,
    pub checksum: Option<Digest>,
    /// Empty: what the server or the address says.
    pub filename: String,
    /// 0: 0600.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub auth_header_secret: String,
    /// Sorted by name.
    pub headers: Vec<(String, String)>,
}

/// A single blob of a registry or of an OCI layout, as a file.
#[derive(Clone, Debug)]
pub struct BlobId {
    /// As given, with the digest.
    pub reference: String,
    pub digest: Digest,
    /// Store and session of an OCI layout; none: a registry.
    pub oci_layout: Option<(String, String)>,
    pub filename: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub record_type: String,
}

impl Identifier {
    /// Reads a source. `platform` is the vertex's.
    ///
    /// # Errors
    /// See [`IdentifierError`].
    pub fn parse(op: &SourceOp, platform: &Platform) -> Result<Identifier, IdentifierError> {
        let (scheme, rest) = op.scheme().ok_or_else(|| IdentifierError::NoScheme(op.identifier.clone()))?;
        let attrs = Attrs(&op.attrs);
        Ok(match scheme {
            "docker-image" => Identifier::Image(image(rest, attrs, platform)?),
            "oci-layout" => Identifier::OciLayout(oci_layout(rest, attrs, platform)?),
            "local" => Identifier::Local(local(rest, attrs)?),
            "git" => Identifier::Git(git(rest, attrs)?),
            "http" | "https" => Identifier::Http(http(&op.identifier, attrs)?),
            "docker-image+blob" => Identifier::Blob(blob(rest, attrs, false)?),
            "oci-layout+blob" => Identifier::Blob(blob(rest, attrs, true)?),
            other => return Err(IdentifierError::UnknownScheme(other.to_owned())),
        })
    }
}

#[derive(Clone, Copy)]
struct Attrs<'a>(&'a BTreeMap<String, String>);

impl<'a> Attrs<'a> {
    fn get(self, key: &str) -> &'a str {
        self.0.get(key).map_or("", String::as_str)
    }

    fn text(self, key: &str) -> String {
        self.get(key).to_owned()
    }

    /// Git's flags are on for this very word.
    fn is_true(self, key: &str) -> bool {
        self.get(key) == "true"
    }

    fn invalid(self, key: &str) -> IdentifierError {
        IdentifierError::Value { attribute: key.to_owned(), value: self.text(key) }
    }

    fn list(self, key: &str) -> Result<Vec<String>, IdentifierError> {
        match self.get(key) {
            "" => Ok(Vec::new()),
            text => serde_json::from_str::<Option<Vec<String>>>(text)
                .map(Option::unwrap_or_default)
                .map_err(|_| self.invalid(key)),
        }
    }

    /// Decimal, octal with `0` or `0o`, hexadecimal with `0x`, as Go reads numbers.
    fn number(self, key: &str) -> Result<u32, IdentifierError> {
        let text = self.get(key);
        let parsed = match text {
            "" => return Ok(0),
            text if text.starts_with("0x") => u32::from_str_radix(&text[2..], 16),
            text if text.starts_with("0o") => u32::from_str_radix(&text[2..], 8),
            text if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(&text[1..], 8),
            text => text.parse(),
        };
        parsed.map_err(|_| self.invalid(key))
    }

    fn layer_limit(self, key: &str) -> Result<Option<usize>, IdentifierError> {
        match self.get(key) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(limit) if limit > 0 => Ok(Some(limit)),
                _ => Err(IdentifierError::LayerLimit(text.to_owned())),
            },
        }
    }

    fn record_type(self) -> Result<String, IdentifierError> {
        match self.get(attrs::IMAGE_RECORD_TYPE) {
            "" => Ok("regular".to_owned()),
            known @ ("regular" | "internal" | "frontend") => Ok(known.to_owned()),
            other => Err(IdentifierError::RecordType(other.to_owned())),
        }
    }
}

fn reference(text: &str) -> Result<Reference, IdentifierError> {
    let reference = Reference::parse(text)
        .map_err(|source| IdentifierError::Reference { reference: text.to_owned(), source })?;
    if reference.is_name_only() { Err(IdentifierError::ObjectRequired) } else { Ok(reference) }
}

/// The digest after `@`, which names in layouts must have.
fn digest_of(text: &str) -> Result<Digest, IdentifierError> {
    let digest = text.rsplit_once('@').and_then(|(_, digest)| Digest::parse(digest).ok());
    digest.ok_or_else(|| {
        IdentifierError::Contradiction(format!("reference {text:?} does not contain a digest"))
    })
}

fn image(text: &str, attrs: Attrs<'_>, platform: &Platform) -> Result<ImageId, IdentifierError> {
    let checksum = match attrs.get(attrs::IMAGE_CHECKSUM) {
        "" => None,
        text => Some(Digest::parse(text).map_err(|_| IdentifierError::ImageChecksum(text.to_owned()))?),
    };
    Ok(ImageId {
        reference: reference(text)?,
        platform: platform.clone(),
        resolve_mode: ResolveMode::parse(attrs.get(attrs::IMAGE_RESOLVE_MODE))?,
        record_type: attrs.record_type()?,
        layer_limit: attrs.layer_limit(attrs::IMAGE_LAYER_LIMIT)?,
        checksum,
    })
}

fn oci_layout(text: &str, attrs: Attrs<'_>, platform: &Platform) -> Result<OciLayoutId, IdentifierError> {
    Ok(OciLayoutId {
        reference: text.to_owned(),
        digest: digest_of(text)?,
        platform: platform.clone(),
        session: attrs.text(attrs::OCI_SESSION_ID),
        store: attrs.text(attrs::OCI_STORE_ID),
        layer_limit: attrs.layer_limit(attrs::OCI_LAYER_LIMIT)?,
    })
}

fn local(name: &str, attrs: Attrs<'_>) -> Result<LocalId, IdentifierError> {
    let (mut name, mut session) = (name.to_owned(), attrs.text(attrs::LOCAL_SESSION_ID));
    // Bake prefixes the session's id with the name of the target.
    if let Some((prefix, id)) = session.clone().split_once(':') {
        name = format!("{prefix}-{name}");
        session = id.to_owned();
    }
    let metadata_only = match attrs.get(attrs::LOCAL_METADATA_TRANSFER) {
        "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => false,
        "1" | "t" | "T" | "true" | "True" | "TRUE" => true,
        _ => return Err(attrs.invalid(attrs::LOCAL_METADATA_TRANSFER)),
    };
    Ok(LocalId {
        name,
        session,
        include: attrs.list(attrs::LOCAL_INCLUDE_PATTERNS)?,
        exclude: attrs.list(attrs::LOCAL_EXCLUDE_PATTERNS)?,
        follow_paths: attrs.list(attrs::LOCAL_FOLLOW_PATHS)?,
        shared_key_hint: attrs.text(attrs::LOCAL_SHARED_KEY_HINT),
        differ_none: attrs.get(attrs::LOCAL_DIFFER) == attrs::LOCAL_DIFFER_NONE,
        metadata_only,
        metadata_exceptions: attrs.list(attrs::LOCAL_METADATA_TRANSFER_EXCLUDE)?,
    })
}

fn git(text: &str, attrs: Attrs<'_>) -> Result<GitId, IdentifierError> {
    let with_transport = |text: &str| {
        if git_url::is_git_transport(text) { text.to_owned() } else { format!("https://{text}") }
    };
    let url = git_url::parse(&with_transport(text))?;
    let fragment = url.fragment.unwrap_or_default();
    let full = attrs.get(attrs::GIT_FULL_URL);
    let id = GitId {
        remote: if full.is_empty() { url.remote } else { with_transport(full) },
        reference: fragment.reference,
        subdir: fragment.subdir,
        checksum: attrs.text(attrs::GIT_CHECKSUM),
        keep_git_dir: attrs.is_true(attrs::GIT_KEEP_GIT_DIR),
        auth_token_secret: attrs.text(attrs::GIT_AUTH_TOKEN_SECRET),
        auth_header_secret: attrs.text(attrs::GIT_AUTH_HEADER_SECRET),
        ssh_agent: attrs.text(attrs::GIT_MOUNT_SSH_SOCK),
        known_hosts: attrs.text(attrs::GIT_KNOWN_SSH_HOSTS),
        skip_submodules: attrs.is_true(attrs::GIT_SKIP_SUBMODULES),
        mtime_of_commit: attrs.get(attrs::GIT_MTIME) == "commit",
        fetch_by_commit: attrs.is_true(attrs::GIT_FETCH_BY_COMMIT),
    };
    // Remote and ref become arguments of a program: they must not pass for its options.
    if id.reference.starts_with('-') {
        return Err(IdentifierError::GitRef(id.reference));
    }
    if id.remote.starts_with('-') || id.remote.contains(char::is_control) {
        return Err(IdentifierError::Value { attribute: attrs::GIT_FULL_URL.to_owned(), value: id.remote });
    }
    for unsupported in [attrs::GIT_BUNDLE, attrs::GIT_CHECKOUT_BUNDLE, attrs::GIT_SIG_PUBKEY] {
        if !matches!(attrs.get(unsupported), "" | "false") {
            return Err(IdentifierError::Contradiction(format!(
                "{unsupported} is not supported by this builder"
            )));
        }
    }
    Ok(id)
}

fn http(url: &str, attrs: Attrs<'_>) -> Result<HttpId, IdentifierError> {
    let checksum = match attrs.get(attrs::HTTP_CHECKSUM) {
        "" => None,
        text => Some(Digest::parse(text).map_err(|_| attrs.invalid(attrs::HTTP_CHECKSUM))?),
    };
    if !attrs.get(attrs::HTTP_SIG_PUBKEY).is_empty() || !attrs.get(attrs::HTTP_SIG_SIGNATURE).is_empty() {
        if attrs.get(attrs::HTTP_SIG_PUBKEY).is_empty() || attrs.get(attrs::HTTP_SIG_SIGNATURE).is_empty() {
            return Err(IdentifierError::HttpSignature);
        }
        let what = format!("{} is not supported by this builder", attrs::HTTP_SIG_PUBKEY);
        return Err(IdentifierError::Contradiction(what));
    }
    let mut headers = Vec::new();
    for (key, value) in attrs.0 {
        let Some(name) = key.strip_prefix(attrs::HTTP_HEADER_PREFIX) else { continue };
        // Others are dropped in silence, as BuildKit does.
        match name.to_ascii_lowercase().as_str() {
            "accept" => headers.push(("Accept".to_owned(), value.clone())),
            "user-agent" => headers.push(("User-Agent".to_owned(), value.clone())),
            _ => {}
        }
    }
    headers.sort();
    Ok(HttpId {
        url: url.to_owned(),
        checksum,
        filename: attrs.text(attrs::HTTP_FILENAME),
        mode: attrs.number(attrs::HTTP_PERM)?,
        uid: attrs.number(attrs::HTTP_UID)?,
        gid: attrs.number(attrs::HTTP_GID)?,
        auth_header_secret: attrs.text(attrs::HTTP_AUTH_HEADER_SECRET),
        headers,
    })
}

fn blob(text: &str, attrs: Attrs<'_>, oci_layout: bool) -> Result<BlobId, IdentifierError> {
    let store = attrs.text(attrs::OCI_STORE_ID);
    if oci_layout && store.is_empty() {
        return Err(IdentifierError::BlobStore);
    }
    let filename = match attrs.get(attrs::HTTP_FILENAME) {
        "" => String::new(),
        name => path::safe_file_name(name).to_owned(),
    };
    Ok(BlobId {
        reference: text.to_owned(),
        digest: digest_of(text)?,
        oci_layout: oci_layout.then(|| (store, attrs.text(attrs::OCI_SESSION_ID))),
        filename,
        mode: attrs.number(attrs::HTTP_PERM)?,
        uid: attrs.number(attrs::HTTP_UID)?,
        gid: attrs.number(attrs::HTTP_GID)?,
        record_type: attrs.record_type()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Result<Identifier, String> {
        let mut op = SourceOp::new(identifier);
        op.attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Identifier::parse(&op, &Platform::linux("amd64")).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_images() {
        let attrs = [("image.resolvemode", "local"), ("image.layerlimit", "2")];
        let Identifier::Image(id) = parse("docker-image://docker.io/library/alpine:3", &attrs).unwrap()
        else {
            panic!()
        };
        assert_eq!((id.reference.familiar().as_str(), id.layer_limit), ("alpine:3", Some(2)));
        assert_eq!(id.resolve_mode, ResolveMode::PreferLocal);
        assert_eq!(parse("docker-image://docker.io/library/alpine", &[]).unwrap_err(), "object required");
        assert_eq!(
            parse("docker-image://a:b", &[("image.layerlimit", "0")]).unwrap_err(),
            "invalid layer limit 0"
        );
        assert_eq!(
            parse("docker-image://a:b", &[("image.resolvemode", "x")]).unwrap_err(),
            "invalid resolvemode: x"
        );
    }

    #[test]
    fn reads_local_directories() {
        let attrs = [
            ("local.session", "app:id1"),
            ("local.includepattern", "[\"a\",\"b\"]"),
            ("local.differ", "none"),
        ];
        let Identifier::Local(id) = parse("local://context", &attrs).unwrap() else { panic!() };
        assert_eq!((id.name.as_str(), id.session.as_str()), ("app-context", "id1"));
        assert_eq!((id.include, id.differ_none), (vec!["a".to_owned(), "b".to_owned()], true));
        assert!(parse("local://x", &[("local.followpaths", "{")]).is_err());
    }

    #[test]
    fn reads_git_repositories() {
        let Identifier::Git(id) = parse("git://github.com/a/b.git#main:sub/dir", &[]).unwrap() else {
            panic!()
        };
        assert_eq!(
            (id.remote.as_str(), id.reference.as_str(), id.subdir.as_str()),
            ("https://github.com/a/b.git", "main", "sub/dir",)
        );
        let full = [("git.fullurl", "ssh://git@host/x"), ("git.keepgitdir", "true")];
        let Identifier::Git(id) = parse("git://host/x", &full).unwrap() else { panic!() };
        assert_eq!((id.remote.as_str(), id.keep_git_dir), ("ssh://git@host/x", true));
        assert_eq!(
            parse("git://host/x#--upload-pack=evil", &[]).unwrap_err(),
            "invalid git ref \"--upload-pack=evil\""
        );
    }

    #[test]
    fn reads_http_files() {
        let attrs = [
            ("http.perm", "0644"),
            ("http.uid", "5"),
            ("http.header.accept", "x"),
            ("http.header.cookie", "y"),
        ];
        let Identifier::Http(id) = parse("https://host/file", &attrs).unwrap() else { panic!() };
        assert_eq!((id.url.as_str(), id.mode, id.uid), ("https://host/file", 0o644, 5));
        assert_eq!(id.headers, [("Accept".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn knows_no_other_schemes() {
        assert_eq!(parse("ftp://x", &[]).unwrap_err(), "unknown scheme ftp: not found");
        assert_eq!(parse("x", &[]).unwrap_err(), "failed to parse x: invalid");
    }
}
