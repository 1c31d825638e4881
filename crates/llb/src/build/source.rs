//! Sources: what a graph brings in from outside.

use std::collections::BTreeMap;

use kiln_oci::{Digest, Reference};

use crate::constraints::Constraints;
use crate::error::Error;
use crate::{State, attrs, caps, git_url, gopath};

/// Whether a registry is asked although an image is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// As the daemon likes.
    #[default]
    Default,
    /// Ask.
    ForcePull,
    /// Only if it is not there.
    PreferLocal,
}

impl ResolveMode {
    /// The attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ForcePull => "pull",
            Self::PreferLocal => "local",
        }
    }
}

/// Options of [`State::image`].
#[derive(Debug, Clone, Default)]
pub struct ImageSource {
    /// Whether a registry is asked.
    pub resolve_mode: ResolveMode,
    /// What its records are listed as; empty: regular.
    pub record_type: String,
    /// Only this many of the lowest layers.
    pub layer_limit: Option<u64>,
    /// Digest that the reference must resolve to.
    pub checksum: Option<Digest>,
}

/// How files are compared with the previous transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalDiffer {
    /// Not at all: everything is sent.
    None,
    /// By metadata.
    Metadata,
}

/// Options of [`State::local`].
#[derive(Debug, Clone, Default)]
pub struct LocalSource {
    /// The only session that may answer.
    pub session_id: Option<String>,
    /// Patterns to include; empty: everything.
    pub include_patterns: Vec<String>,
    /// Patterns to exclude.
    pub exclude_patterns: Vec<String>,
    /// Paths to include, and what links on them point to.
    pub follow_paths: Vec<String>,
    /// What transfers that share a previous state have in common.
    pub shared_key_hint: String,
    /// How files are compared, and whether the daemon must be able to.
    pub differ: Option<(LocalDiffer, bool)>,
    /// Transfer metadata only, but for contents of what one of these patterns matches.
    pub metadata_only: Option<Vec<String>>,
}

/// Options of [`State::git`].
#[derive(Debug, Clone, Default)]
pub struct GitSource {
    /// Branch, tag or commit; empty: the remote's default.
    pub reference: String,
    /// Only this directory.
    pub subdir: String,
    /// Keep `.git`.
    pub keep_git_dir: bool,
    /// Commit (or a prefix) that the reference must resolve to; empty: none.
    pub checksum: String,
    /// Leave submodules out.
    pub skip_submodules: bool,
    /// `checkout` or `commit`; empty: the default.
    pub mtime: String,
    /// Fetch the checksum's commit without asking for the reference.
    pub fetch_by_commit: bool,
    /// Id of the token's secret; none: `GIT_AUTH_TOKEN`.
    pub auth_token_secret: Option<String>,
    /// Id of the header's secret; none: `GIT_AUTH_HEADER`.
    pub auth_header_secret: Option<String>,
    /// Lines of a `known_hosts` file, for ssh.
    pub known_ssh_hosts: String,
    /// Id of the agent, for ssh; empty: `default`.
    pub mount_ssh_sock: String,
    /// Locator of a bundle to import from; empty: none.
    pub bundle: String,
    /// Session and store of a bundle in an OCI layout.
    pub bundle_oci_store: Option<(String, String)>,
    /// Give a bundle instead of a tree.
    pub checkout_bundle: bool,
    /// Further attributes, such as those of signatures.
    pub attrs: BTreeMap<String, String>,
}

/// Name and ownership of a single file; zero or empty: the default.
#[derive(Debug, Clone, Default)]
pub struct FileInfo {
    /// Its name.
    pub filename: String,
    /// Its permissions.
    pub perm: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Options of [`State::http`].
#[derive(Debug, Clone, Default)]
pub struct HttpSource {
    /// The file.
    pub file: FileInfo,
    /// Digest of the body.
    pub checksum: Option<Digest>,
    /// Id of the secret with an authorization header; empty: none.
    pub auth_header_secret: String,
    /// Value of the `accept` header; empty: none.
    pub accept: String,
    /// Value of the `user-agent` header; empty: none.
    pub user_agent: String,
    /// Armored keys and detached signature.
    pub signature: Option<(String, String)>,
}

/// Options of [`State::oci_layout`].
#[derive(Debug, Clone, Default)]
pub struct OciLayoutSource {
    /// The session that has the store; empty: any of the build.
    pub session_id: String,
    /// The store's name there; empty: from the reference.
    pub store_id: String,
    /// Only this many of the lowest layers.
    pub layer_limit: Option<u64>,
}

/// Attributes and capabilities as they come together.
#[derive(Default)]
struct Collected {
    attrs: BTreeMap<String, String>,
    caps: Vec<&'static str>,
}

impl Collected {
    fn attr(&mut self, key: &str, value: impl Into<String>) {
        self.attrs.insert(key.to_string(), value.into());
    }

    fn with_cap(&mut self, key: &str, value: impl Into<String>, cap: &'static str) {
        self.attr(key, value);
        self.caps.push(cap);
    }

    fn file(&mut self, file: &FileInfo) {
        if !file.filename.is_empty() {
            self.attr(attrs::HTTP_FILENAME, &file.filename);
        }
        if file.perm & 0o777 != 0 {
            self.attr(attrs::HTTP_PERM, format!("0{:o}", file.perm & 0o777));
        }
        if file.uid != 0 {
            self.attr(attrs::HTTP_UID, file.uid.to_string());
        }
        if file.gid != 0 {
            self.attr(attrs::HTTP_GID, file.gid.to_string());
        }
    }

    fn source(self, identifier: String, constraints: Constraints) -> State {
        State::source(identifier, self.attrs, &self.caps, constraints)
    }
}

fn json(list: &[String]) -> String {
    // As Go writes it: these three are escaped inside strings.
    let text = serde_json::to_string(list).expect("a list of strings has a JSON form");
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn parse_reference(text: &str) -> Result<Reference, Error> {
    Reference::parse(text).map_err(|source| Error::Reference { reference: text.to_string(), source })
}

impl State {
    /// An image. A reference without tag and digest means the tag `latest`.
    pub fn image(reference: &str, options: ImageSource, constraints: Constraints) -> Result<State, Error> {
        let reference = parse_reference(reference)?.with_default_tag();
        let mut collected = Collected { caps: vec![caps::SOURCE_IMAGE], ..Default::default() };
        match options.resolve_mode {
            ResolveMode::Default => {}
            // Only this one is about safety: a daemon that does not know it must refuse.
            mode @ ResolveMode::ForcePull => {
                collected.with_cap(attrs::IMAGE_RESOLVE_MODE, mode.as_str(), caps::SOURCE_IMAGE_RESOLVEMODE);
            }
            mode => collected.attr(attrs::IMAGE_RESOLVE_MODE, mode.as_str()),
        }
        if !options.record_type.is_empty() {
            collected.attr(attrs::IMAGE_RECORD_TYPE, options.record_type);
        }
        if let Some(limit) = options.layer_limit {
            collected.with_cap(attrs::IMAGE_LAYER_LIMIT, limit.to_string(), caps::SOURCE_IMAGE_LAYERLIMIT);
        }
        if let Some(checksum) = options.checksum {
            collected.with_cap(attrs::IMAGE_CHECKSUM, checksum.as_str(), caps::SOURCE_IMAGE_CHECKSUM);
        }
        Ok(collected.source(format!("{}{reference}", attrs::SCHEME_IMAGE), constraints))
    }

    /// A single blob of a registry's repository as a file. The reference has a digest and no tag.
    pub fn image_blob(reference: &str, file: FileInfo, constraints: Constraints) -> Result<State, Error> {
        let reference = blob_reference(reference)?;
        let mut collected = Collected { caps: vec![caps::SOURCE_IMAGEBLOB], ..Default::default() };
        collected.file(&file);
        Ok(collected.source(format!("{}{reference}", attrs::SCHEME_IMAGE_BLOB), constraints))
    }

    /// An image in a client's OCI layout. The reference has a digest.
    pub fn oci_layout(reference: &str, options: OciLayoutSource, constraints: Constraints) -> State {
        let mut collected = Collected { caps: vec![caps::SOURCE_OCILAYOUT], ..Default::default() };
        collected.oci_store(&options.session_id, &options.store_id);
        if let Some(limit) = options.layer_limit {
            collected.attr(attrs::OCI_LAYER_LIMIT, limit.to_string());
        }
        collected.source(format!("{}{reference}", attrs::SCHEME_OCI_LAYOUT), constraints)
    }

    /// A single blob of a client's OCI layout as a file. The reference has a digest and no tag.
    pub fn oci_layout_blob(
        reference: &str,
        file: FileInfo,
        options: OciLayoutSource,
        constraints: Constraints,
    ) -> Result<State, Error> {
        let reference = blob_reference(reference)?;
        let mut collected = Collected { caps: vec![caps::SOURCE_IMAGEBLOB], ..Default::default() };
        collected.file(&file);
        collected.oci_store(&options.session_id, &options.store_id);
        Ok(collected.source(format!("{}{reference}", attrs::SCHEME_OCI_LAYOUT_BLOB), constraints))
    }

    /// A directory of the client, by the name under which the client serves it.
    pub fn local(name: &str, options: LocalSource, constraints: Constraints) -> State {
        let mut collected = Collected { caps: vec![caps::SOURCE_LOCAL], ..Default::default() };
        match &options.session_id {
            Some(id) => collected.with_cap(attrs::LOCAL_SESSION_ID, id, caps::SOURCE_LOCAL_SESSIONID),
            None => collected.caps.push(caps::SOURCE_LOCAL_UNIQUE),
        }
        for (list, key, cap) in [
            (&options.include_patterns, attrs::LOCAL_INCLUDE_PATTERNS, caps::SOURCE_LOCAL_INCLUDEPATTERNS),
            (&options.follow_paths, attrs::LOCAL_FOLLOW_PATHS, caps::SOURCE_LOCAL_FOLLOWPATHS),
            (&options.exclude_patterns, attrs::LOCAL_EXCLUDE_PATTERNS, caps::SOURCE_LOCAL_EXCLUDEPATTERNS),
        ] {
            if !list.is_empty() {
                collected.with_cap(key, json(list), cap);
            }
        }
        if !options.shared_key_hint.is_empty() {
            collected.with_cap(
                attrs::LOCAL_SHARED_KEY_HINT,
                options.shared_key_hint,
                caps::SOURCE_LOCAL_SHAREDKEYHINT,
            );
        }
        if let Some((differ, required)) = options.differ {
            let value = match differ {
                LocalDiffer::None => attrs::LOCAL_DIFFER_NONE,
                LocalDiffer::Metadata => attrs::LOCAL_DIFFER_METADATA,
            };
            collected.attr(attrs::LOCAL_DIFFER, value);
            if required {
                collected.caps.push(caps::SOURCE_LOCAL_DIFFER);
            }
        }
        if let Some(except) = options.metadata_only {
            collected.with_cap(attrs::LOCAL_METADATA_TRANSFER, "true", caps::SOURCE_LOCAL_METADATATRANSFER);
            if !except.is_empty() {
                collected.attr(attrs::LOCAL_METADATA_TRANSFER_EXCLUDE, json(&except));
            }
        }
        collected.source(format!("{}{name}", attrs::SCHEME_LOCAL), constraints)
    }

    /// A git repository. The identifier leaves transport and user out, so that one repository reached by two ways is one source.
    pub fn git(url: &str, options: GitSource, constraints: Constraints) -> State {
        let mut url = url.to_string();
        let mut remote = git_url::parse(&url);
        if matches!(remote, Err(git_url::GitUrlError::UnknownProtocol)) {
            url = format!("https://{url}");
            remote = git_url::parse(&url);
        }
        let remote = remote.ok();
        let identifier = match &remote {
            // An address that is none fails when it is fetched, with the address in the error.
            None => url.clone(),
            Some(remote) => {
                let mut id = remote.host.clone() + &gopath::join(&["/", &remote.path]);
                if !options.reference.is_empty() || !options.subdir.is_empty() {
                    id += &format!("#{}", options.reference);
                }
                if !options.subdir.is_empty() {
                    id += &format!(":{}", options.subdir);
                }
                id
            }
        };
        if let Some(remote) = &remote {
            url.clone_from(&remote.remote);
        }

        let mut collected =
            Collected { caps: vec![caps::SOURCE_GIT, caps::SOURCE_GIT_FULLURL], attrs: options.attrs };
        if collected.attrs.keys().any(|key| key.starts_with("git.sig.")) {
            collected.caps.push(caps::SOURCE_GIT_SIGNATUREVERIFY);
        }
        collected.attr(attrs::GIT_FULL_URL, &url);
        for (secret, default, key) in [
            (&options.auth_token_secret, "GIT_AUTH_TOKEN", attrs::GIT_AUTH_TOKEN_SECRET),
            (&options.auth_header_secret, "GIT_AUTH_HEADER", attrs::GIT_AUTH_HEADER_SECRET),
        ] {
            if secret.is_some() {
                collected.caps.push(caps::SOURCE_GIT_HTTPAUTH);
            }
            match secret.as_deref().unwrap_or(default) {
                "" => {}
                id => collected.attr(key, id),
            }
        }
        if remote.is_some_and(|remote| remote.scheme == "ssh") {
            if !options.known_ssh_hosts.is_empty() {
                collected.attr(attrs::GIT_KNOWN_SSH_HOSTS, options.known_ssh_hosts);
            }
            let agent = if options.mount_ssh_sock.is_empty() { "default" } else { &options.mount_ssh_sock };
            collected.with_cap(attrs::GIT_MOUNT_SSH_SOCK, agent, caps::SOURCE_GIT_MOUNTSSHSOCK);
            collected.caps.push(caps::SOURCE_GIT_KNOWNSSHHOSTS);
        }
        for (value, key, cap) in [
            (options.checksum, attrs::GIT_CHECKSUM, caps::SOURCE_GIT_CHECKSUM),
            (options.mtime, attrs::GIT_MTIME, caps::SOURCE_GIT_MTIME),
            (options.bundle, attrs::GIT_BUNDLE, caps::SOURCE_GIT_BUNDLE),
        ] {
            if !value.is_empty() {
                collected.with_cap(key, value, cap);
            }
        }
        for (set, key, cap) in [
            (options.keep_git_dir, attrs::GIT_KEEP_GIT_DIR, caps::SOURCE_GIT_KEEPGITDIR),
            (options.skip_submodules, attrs::GIT_SKIP_SUBMODULES, caps::SOURCE_GIT_SKIPSUBMODULES),
            (options.fetch_by_commit, attrs::GIT_FETCH_BY_COMMIT, caps::SOURCE_GIT_FETCHBYCOMMIT),
            (options.checkout_bundle, attrs::GIT_CHECKOUT_BUNDLE, caps::SOURCE_GIT_CHECKOUTBUNDLE),
        ] {
            if set {
                collected.with_cap(key, "true", cap);
            }
        }
        if let Some((session, store)) = options.bundle_oci_store {
            collected.oci_store(&session, &store);
        }
        collected.source(format!("{}{identifier}", attrs::SCHEME_GIT), constraints)
    }

    /// A file over HTTP.
    pub fn http(url: &str, options: HttpSource, constraints: Constraints) -> State {
        let mut collected = Collected { caps: vec![caps::SOURCE_HTTP], ..Default::default() };
        collected.file(&options.file);
        if options.file.perm & 0o777 != 0 {
            collected.caps.push(caps::SOURCE_HTTP_PERM);
        }
        if options.file.uid != 0 || options.file.gid != 0 {
            collected.caps.push(caps::SOURCE_HTTP_UIDGID);
        }
        if let Some(checksum) = options.checksum {
            collected.with_cap(attrs::HTTP_CHECKSUM, checksum.as_str(), caps::SOURCE_HTTP_CHECKSUM);
        }
        if !options.auth_header_secret.is_empty() {
            collected.with_cap(
                attrs::HTTP_AUTH_HEADER_SECRET,
                options.auth_header_secret,
                caps::SOURCE_HTTP_AUTH,
            );
        }
        for (name, value) in [("accept", options.accept), ("user-agent", options.user_agent)] {
            if !value.is_empty() {
                let key = format!("{}{name}", attrs::HTTP_HEADER_PREFIX);
                collected.with_cap(&key, value, caps::SOURCE_HTTP_HEADER);
            }
        }
        if let Some((keys, signature)) = options.signature {
            collected.attr(attrs::HTTP_SIG_PUBKEY, keys);
            collected.with_cap(attrs::HTTP_SIG_SIGNATURE, signature, caps::SOURCE_HTTP_SIGNATUREVERIFY);
        }
        collected.source(url.to_string(), constraints)
    }
}

impl Collected {
    fn oci_store(&mut self, session_id: &str, store_id: &str) {
        if !session_id.is_empty() {
            self.attr(attrs::OCI_SESSION_ID, session_id);
        }
        if !store_id.is_empty() {
            self.attr(attrs::OCI_STORE_ID, store_id);
        }
    }
}

fn blob_reference(text: &str) -> Result<Reference, Error> {
    let reference = parse_reference(text)?;
    if reference.tag().is_some() {
        return Err(Error::Incomplete("tagged image reference not allowed for blob reference"));
    }
    if reference.digest().is_none() {
        return Err(Error::Incomplete("checksum required in blob reference"));
    }
    Ok(reference)
}
