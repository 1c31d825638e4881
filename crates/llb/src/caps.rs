//! Capabilities: names by which peers agree on what one may ask of the other.
//!
//! A vertex lists in its metadata what it needs; a daemon that does not know one of the names refuses the graph. The same
//! mechanism with another list of names serves the gateway.

use kiln_proto::apicaps::ApiCap;

/// How settled a capability is; it only colours error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CapStatus {
    /// May change.
    Experimental,
    /// About to be released.
    Prerelease,
}

/// One capability that this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cap {
    /// The wire name.
    pub id: &'static str,
    /// How settled it is.
    pub status: CapStatus,
    /// What people call it; mostly empty.
    pub name: &'static str,
    /// Clients need not ask for it any more.
    pub deprecated: bool,
}

impl Cap {
    /// An experimental capability without a further name.
    pub const fn new(id: &'static str) -> Self {
        Self { id, status: CapStatus::Experimental, name: "", deprecated: false }
    }
}

/// The capabilities of one API, in any order.
#[derive(Debug, Clone, Copy)]
pub struct CapList(pub &'static [Cap]);

/// A capability that is needed and not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapError {
    /// This program has never heard of it.
    #[error("unknown API capability {0}")]
    Unknown(String),
    /// The peer does not list it.
    #[error("requested {status}feature {id} {name} is not supported by build server, please update buildkit")]
    Unsupported {
        /// The wire name.
        id: String,
        /// `experimental ` or `prerelease `.
        status: &'static str,
        /// In parentheses, or empty.
        name: String,
    },
    /// The peer lists it as switched off.
    #[error("requested {status}feature {id} {name} has been disabled on the build server{reason}")]
    Disabled {
        /// The wire name.
        id: String,
        /// `experimental ` or `prerelease `.
        status: &'static str,
        /// In parentheses, or empty.
        name: String,
        /// `: ` and why, or empty.
        reason: String,
    },
}

impl CapList {
    /// The known capability of that name.
    pub fn get(&self, id: &str) -> Option<&'static Cap> {
        self.0.iter().find(|cap| cap.id == id)
    }

    /// The whole list as it is told to peers: everything enabled, in the order of the names.
    pub fn advertise(&self) -> Vec<ApiCap> {
        let mut all: Vec<ApiCap> = self
            .0
            .iter()
            .map(|cap| ApiCap {
                id: cap.id.to_string(),
                enabled: true,
                deprecated: cap.deprecated,
                ..Default::default()
            })
            .collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Whether this program itself offers `id`.
    pub fn offers(&self, id: &str) -> Result<(), CapError> {
        self.get(id).map(|_| ()).ok_or_else(|| CapError::Unknown(id.to_string()))
    }

    /// Whether a peer that listed `peer` supports `id`.
    pub fn supports(&self, peer: &[ApiCap], id: &str) -> Result<(), CapError> {
        let cap = self.get(id).ok_or_else(|| CapError::Unknown(id.to_string()))?;
        let status = match cap.status {
            CapStatus::Experimental => "experimental ",
            CapStatus::Prerelease => "prerelease ",
        };
        let name = if cap.name.is_empty() { String::new() } else { format!("({})", cap.name) };
        match peer.iter().find(|c| c.id == id) {
            None => Err(CapError::Unsupported { id: id.to_string(), status, name }),
            Some(state) if !state.enabled => {
                let reason = match state.disabled_reason_msg.as_str() {
                    "" => String::new(),
                    text => format!(": {text}"),
                };
                Err(CapError::Disabled { id: id.to_string(), status, name, reason })
            }
            Some(_) => Ok(()),
        }
    }
}

/// Capabilities of the LLB API that the daemon offers.
pub const LLB: CapList = CapList(&[
    Cap::new(SOURCE_IMAGE),
    Cap::new(SOURCE_IMAGE_RESOLVEMODE),
    Cap::new(SOURCE_IMAGE_LAYERLIMIT),
    Cap::new(SOURCE_IMAGE_CHECKSUM),
    Cap::new(SOURCE_LOCAL),
    Cap::new(SOURCE_LOCAL_UNIQUE),
    Cap::new(SOURCE_LOCAL_SESSIONID),
    Cap::new(SOURCE_LOCAL_INCLUDEPATTERNS),
    Cap::new(SOURCE_LOCAL_FOLLOWPATHS),
    Cap::new(SOURCE_LOCAL_EXCLUDEPATTERNS),
    Cap::new(SOURCE_LOCAL_SHAREDKEYHINT),
    Cap::new(SOURCE_LOCAL_DIFFER),
    Cap::new(SOURCE_LOCAL_METADATATRANSFER),
    Cap::new(SOURCE_GIT),
    Cap::new(SOURCE_GIT_KEEPGITDIR),
    Cap::new(SOURCE_GIT_FULLURL),
    Cap::new(SOURCE_GIT_HTTPAUTH),
    Cap::new(SOURCE_GIT_KNOWNSSHHOSTS),
    Cap::new(SOURCE_GIT_MOUNTSSHSOCK),
    Cap::new(SOURCE_GIT_SUBDIR),
    Cap::new(SOURCE_GIT_CHECKSUM),
    Cap::new(SOURCE_GIT_SKIPSUBMODULES),
    Cap::new(SOURCE_GIT_SIGNATUREVERIFY),
    Cap::new(SOURCE_GIT_MTIME),
    Cap::new(SOURCE_GIT_FETCHBYCOMMIT),
    Cap::new(SOURCE_GIT_BUNDLE),
    Cap::new(SOURCE_GIT_CHECKOUTBUNDLE),
    Cap::new(SOURCE_HTTP),
    Cap::new(SOURCE_HTTP_AUTH),
    Cap::new(SOURCE_HTTP_CHECKSUM),
    Cap::new(SOURCE_HTTP_PERM),
    Cap::new(SOURCE_HTTP_UIDGID),
    Cap::new(SOURCE_HTTP_HEADER),
    Cap::new(SOURCE_HTTP_SIGNATUREVERIFY),
    Cap::new(SOURCE_IMAGEBLOB),
    Cap::new(SOURCE_OCILAYOUT),
    Cap::new(SOURCE_BUILDOP_LLBFILENAME),
    Cap::new(EXEC_META_BASE),
    Cap::new(EXEC_META_CGROUP_PARENT),
    Cap::new(EXEC_META_NETWORK),
    Cap::new(EXEC_META_NETWORK_PROXY),
    Cap::new(EXEC_META_PROXYENV),
    Cap::new(EXEC_META_SECURITY),
    Cap::new(EXEC_META_SECURITY_DEVICES_V1),
    Cap::new(EXEC_META_SETSDEFAULTPATH),
    Cap::new(EXEC_META_ULIMIT),
    Cap::new(EXEC_META_CDI),
    Cap::new(EXEC_META_LINUX_RESOURCES),
    Cap::new(EXEC_MOUNT_BIND),
    Cap::new(EXEC_MOUNT_BIND_READWRITE_NOOUTPUT),
    Cap::new(EXEC_MOUNT_CACHE),
    Cap::new(EXEC_MOUNT_CACHE_SHARING),
    Cap::new(EXEC_MOUNT_SELECTOR),
    Cap::new(EXEC_MOUNT_TMPFS),
    Cap::new(EXEC_MOUNT_TMPFS_SIZE),
    Cap::new(EXEC_MOUNT_SECRET),
    Cap::new(EXEC_MOUNT_SSH),
    Cap::new(EXEC_MOUNT_CACHE_CONTENT),
    Cap::new(EXEC_CGROUP),
    Cap::new(EXEC_SECRETENV),
    Cap::new(EXEC_VALIDEXITCODE),
    Cap { status: CapStatus::Prerelease, ..Cap::new(FILE_BASE) },
    Cap::new(FILE_RM_WILDCARD),
    Cap::new(FILE_COPY_INCLUDEEXCLUDEPATTERNS),
    Cap::new(FILE_COPY_REQUIREDPATHS),
    Cap::new(FILE_RM_NOFOLLOWSYMLINK),
    Cap::new(FILE_COPY_ALWAYSREPLACEEXISTINGDESTPATHS),
    Cap::new(FILE_SYMLINK_CREATE),
    Cap::new(CONSTRAINTS),
    Cap::new(PLATFORM),
    Cap::new(META_IGNORECACHE),
    Cap::new(META_DESCRIPTION),
    Cap::new(META_EXPORTCACHE),
    Cap::new(CACHE_GHA),
    Cap::new(CACHE_S3),
    Cap::new(CACHE_AZBLOB),
    Cap::new(MERGEOP),
    Cap::new(DIFFOP),
    Cap::new(PASSTHROUGHOP),
    Cap::new(EXPORTER_IMAGE_ANNOTATIONS),
    Cap::new(EXPORTER_IMAGE_ATTESTATIONS),
    Cap { name: "source date epoch", ..Cap::new(EXPORTER_SOURCEDATEEPOCH) },
    Cap::new(EXPORTER_MULTIPLE),
    Cap::new(EXPORTER_SESSION),
    Cap::new(SOURCE_POLICY),
    Cap::new(SOURCE_POLICY_SESSION),
    Cap::new(GC_FREESPACEFILTER),
    Cap::new(HISTORY_FILTER),
]);

/// `source.image`.
pub const SOURCE_IMAGE: &str = "source.image";
/// `source.image.resolvemode`.
pub const SOURCE_IMAGE_RESOLVEMODE: &str = "source.image.resolvemode";
/// `source.image.layerlimit`.
pub const SOURCE_IMAGE_LAYERLIMIT: &str = "source.image.layerlimit";
/// `source.image.checksum`.
pub const SOURCE_IMAGE_CHECKSUM: &str = "source.image.checksum";
/// `source.local`.
pub const SOURCE_LOCAL: &str = "source.local";
/// `source.local.unique`.
pub const SOURCE_LOCAL_UNIQUE: &str = "source.local.unique";
/// `source.local.sessionid`.
pub const SOURCE_LOCAL_SESSIONID: &str = "source.local.sessionid";
/// `source.local.includepatterns`.
pub const SOURCE_LOCAL_INCLUDEPATTERNS: &str = "source.local.includepatterns";
/// `source.local.followpaths`.
pub const SOURCE_LOCAL_FOLLOWPATHS: &str = "source.local.followpaths";
/// `source.local.excludepatterns`.
pub const SOURCE_LOCAL_EXCLUDEPATTERNS: &str = "source.local.excludepatterns";
/// `source.local.sharedkeyhint`.
pub const SOURCE_LOCAL_SHAREDKEYHINT: &str = "source.local.sharedkeyhint";
/// `source.local.differ`.
pub const SOURCE_LOCAL_DIFFER: &str = "source.local.differ";
/// `source.local.metadatatransfer`.
pub const SOURCE_LOCAL_METADATATRANSFER: &str = "source.local.metadatatransfer";
/// `source.git`.
pub const SOURCE_GIT: &str = "source.git";
/// `source.git.keepgitdir`.
pub const SOURCE_GIT_KEEPGITDIR: &str = "source.git.keepgitdir";
/// `source.git.fullurl`.
pub const SOURCE_GIT_FULLURL: &str = "source.git.fullurl";
/// `source.git.httpauth`.
pub const SOURCE_GIT_HTTPAUTH: &str = "source.git.httpauth";
/// `source.git.knownsshhosts`.
pub const SOURCE_GIT_KNOWNSSHHOSTS: &str = "source.git.knownsshhosts";
/// `source.git.mountsshsock`.
pub const SOURCE_GIT_MOUNTSSHSOCK: &str = "source.git.mountsshsock";
/// `source.git.subdir`.
pub const SOURCE_GIT_SUBDIR: &str = "source.git.subdir";
/// `source.git.checksum`.
pub const SOURCE_GIT_CHECKSUM: &str = "source.git.checksum";
/// `source.git.skipsubmodules`.
pub const SOURCE_GIT_SKIPSUBMODULES: &str = "source.git.skipsubmodules";
/// `source.git.signatureverify`.
pub const SOURCE_GIT_SIGNATUREVERIFY: &str = "source.git.signatureverify";
/// `source.git.mtime`.
pub const SOURCE_GIT_MTIME: &str = "source.git.mtime";
/// `source.git.fetchbycommit`.
pub const SOURCE_GIT_FETCHBYCOMMIT: &str = "source.git.fetchbycommit";
/// `source.git.bundle`.
pub const SOURCE_GIT_BUNDLE: &str = "source.git.bundle";
/// `source.git.checkoutbundle`.
pub const SOURCE_GIT_CHECKOUTBUNDLE: &str = "source.git.checkoutbundle";
/// `source.http`.
pub const SOURCE_HTTP: &str = "source.http";
/// `source.http.auth`.
pub const SOURCE_HTTP_AUTH: &str = "source.http.auth";
/// `source.http.checksum`.
pub const SOURCE_HTTP_CHECKSUM: &str = "source.http.checksum";
/// `source.http.perm`.
pub const SOURCE_HTTP_PERM: &str = "source.http.perm";
/// `soruce.http.uidgid`. The misspelling is the wire name.
pub const SOURCE_HTTP_UIDGID: &str = "soruce.http.uidgid";
/// `source.http.header`.
pub const SOURCE_HTTP_HEADER: &str = "source.http.header";
/// `source.http.signatureverify`.
pub const SOURCE_HTTP_SIGNATUREVERIFY: &str = "source.http.signatureverify";
/// `source.imageblob`.
pub const SOURCE_IMAGEBLOB: &str = "source.imageblob";
/// `source.ocilayout`.
pub const SOURCE_OCILAYOUT: &str = "source.ocilayout";
/// `source.buildop.llbfilename`.
pub const SOURCE_BUILDOP_LLBFILENAME: &str = "source.buildop.llbfilename";
/// `exec.meta.base`.
pub const EXEC_META_BASE: &str = "exec.meta.base";
/// `exec.meta.cgroup.parent`.
pub const EXEC_META_CGROUP_PARENT: &str = "exec.meta.cgroup.parent";
/// `exec.meta.network`.
pub const EXEC_META_NETWORK: &str = "exec.meta.network";
/// `exec.meta.network.proxy`.
pub const EXEC_META_NETWORK_PROXY: &str = "exec.meta.network.proxy";
/// `exec.meta.proxyenv`.
pub const EXEC_META_PROXYENV: &str = "exec.meta.proxyenv";
/// `exec.meta.security`.
pub const EXEC_META_SECURITY: &str = "exec.meta.security";
/// `exec.meta.security.devices.v1`.
pub const EXEC_META_SECURITY_DEVICES_V1: &str = "exec.meta.security.devices.v1";
/// `exec.meta.setsdefaultpath`.
pub const EXEC_META_SETSDEFAULTPATH: &str = "exec.meta.setsdefaultpath";
/// `exec.meta.ulimit`.
pub const EXEC_META_ULIMIT: &str = "exec.meta.ulimit";
/// `exec.meta.cdi`.
pub const EXEC_META_CDI: &str = "exec.meta.cdi";
/// `exec.meta.removemountstubs.recursive`. Named by BuildKit but not in its list: a vertex that asks for it is refused.
pub const EXEC_META_REMOVEMOUNTSTUBS_RECURSIVE: &str = "exec.meta.removemountstubs.recursive";
/// `exec.meta.linux.resources`.
pub const EXEC_META_LINUX_RESOURCES: &str = "exec.meta.linux.resources";
/// `exec.mount.bind`.
pub const EXEC_MOUNT_BIND: &str = "exec.mount.bind";
/// `exec.mount.bind.readwrite-nooutput`.
pub const EXEC_MOUNT_BIND_READWRITE_NOOUTPUT: &str = "exec.mount.bind.readwrite-nooutput";
/// `exec.mount.cache`.
pub const EXEC_MOUNT_CACHE: &str = "exec.mount.cache";
/// `exec.mount.cache.sharing`.
pub const EXEC_MOUNT_CACHE_SHARING: &str = "exec.mount.cache.sharing";
/// `exec.mount.selector`.
pub const EXEC_MOUNT_SELECTOR: &str = "exec.mount.selector";
/// `exec.mount.tmpfs`.
pub const EXEC_MOUNT_TMPFS: &str = "exec.mount.tmpfs";
/// `exec.mount.tmpfs.size`.
pub const EXEC_MOUNT_TMPFS_SIZE: &str = "exec.mount.tmpfs.size";
/// `exec.mount.secret`.
pub const EXEC_MOUNT_SECRET: &str = "exec.mount.secret";
/// `exec.mount.ssh`.
pub const EXEC_MOUNT_SSH: &str = "exec.mount.ssh";
/// `exec.mount.cache.content`.
pub const EXEC_MOUNT_CACHE_CONTENT: &str = "exec.mount.cache.content";
/// `exec.cgroup`.
pub const EXEC_CGROUP: &str = "exec.cgroup";
/// `exec.secretenv`.
pub const EXEC_SECRETENV: &str = "exec.secretenv";
/// `exec.validexitcode`.
pub const EXEC_VALIDEXITCODE: &str = "exec.validexitcode";
/// `file.base`.
pub const FILE_BASE: &str = "file.base";
/// `file.rm.wildcard`.
pub const FILE_RM_WILDCARD: &str = "file.rm.wildcard";
/// `file.copy.includeexcludepatterns`.
pub const FILE_COPY_INCLUDEEXCLUDEPATTERNS: &str = "file.copy.includeexcludepatterns";
/// `file.copy.requiredpaths`.
pub const FILE_COPY_REQUIREDPATHS: &str = "file.copy.requiredpaths";
/// `file.rm.nofollowsymlink`.
pub const FILE_RM_NOFOLLOWSYMLINK: &str = "file.rm.nofollowsymlink";
/// `file.copy.alwaysreplaceexistingdestpaths`.
pub const FILE_COPY_ALWAYSREPLACEEXISTINGDESTPATHS: &str = "file.copy.alwaysreplaceexistingdestpaths";
/// `file.copy.modestring`. Named by BuildKit but not in its list: a vertex that asks for it is refused.
pub const FILE_COPY_MODESTRING: &str = "file.copy.modestring";
/// `file.symlink.create`.
pub const FILE_SYMLINK_CREATE: &str = "file.symlink.create";
/// `constraints`.
pub const CONSTRAINTS: &str = "constraints";
/// `platform`.
pub const PLATFORM: &str = "platform";
/// `meta.ignorecache`.
pub const META_IGNORECACHE: &str = "meta.ignorecache";
/// `meta.description`.
pub const META_DESCRIPTION: &str = "meta.description";
/// `meta.exportcache`.
pub const META_EXPORTCACHE: &str = "meta.exportcache";
/// `cache.gha`.
pub const CACHE_GHA: &str = "cache.gha";
/// `cache.s3`.
pub const CACHE_S3: &str = "cache.s3";
/// `cache.azblob`.
pub const CACHE_AZBLOB: &str = "cache.azblob";
/// `mergeop`.
pub const MERGEOP: &str = "mergeop";
/// `diffop`.
pub const DIFFOP: &str = "diffop";
/// `passthroughop`.
pub const PASSTHROUGHOP: &str = "passthroughop";
/// `exporter.image.annotations`.
pub const EXPORTER_IMAGE_ANNOTATIONS: &str = "exporter.image.annotations";
/// `exporter.image.attestations`.
pub const EXPORTER_IMAGE_ATTESTATIONS: &str = "exporter.image.attestations";
/// `exporter.sourcedateepoch`.
pub const EXPORTER_SOURCEDATEEPOCH: &str = "exporter.sourcedateepoch";
/// `exporter.multiple`.
pub const EXPORTER_MULTIPLE: &str = "exporter.multiple";
/// `exporter.session`.
pub const EXPORTER_SESSION: &str = "exporter.session";
/// `source.policy`.
pub const SOURCE_POLICY: &str = "source.policy";
/// `source.policy.session`.
pub const SOURCE_POLICY_SESSION: &str = "source.policy.session";
/// `gc.freespacefilter`.
pub const GC_FREESPACEFILTER: &str = "gc.freespacefilter";
/// `history.filter`.
pub const HISTORY_FILTER: &str = "history.filter";
