//! What a build asks for, besides the Dockerfile.

use crate::lint::LintConfig;
use kiln_llb::{Device, ExtraHost, LinuxResources, NetMode, ResolveMode, SourceMap, Ulimit};
use kiln_oci::Platform;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Which stages ignore the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    #[default]
    None,
    All,
    /// Those with these names.
    Stages(Vec<String>),
}

impl NoCache {
    pub(super) fn applies_to(&self, stage: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Stages(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

/// What one conversion asks for.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// The stage to build; empty for the last one.
    pub target: String,
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// What to build for; none for what builds run on, which then depends on the base image.
    pub target_platform: Option<Platform>,
    /// What builds run on, the preferred one first. Not empty.
    pub build_platforms: Vec<Platform>,
    /// Several platforms are built: names of steps tell which.
    pub multi_platform: bool,
    pub resolve_mode: ResolveMode,
    pub network: NetMode,
    /// The name of the machine in steps; empty for the default.
    pub hostname: String,
    pub extra_hosts: Vec<ExtraHost>,
    /// Bytes of `/dev/shm`; 0 for the default.
    pub shm_size: i64,
    pub ulimits: Vec<Ulimit>,
    /// Devices for all steps.
    pub devices: Vec<Device>,
    /// Empty for the default.
    pub cgroup_parent: String,
    pub linux_resources: Option<LinuxResources>,
    /// What ids of cache mounts begin with.
    pub cache_id_namespace: String,
    pub no_cache: NoCache,
    /// Named contexts: `name` or `name::platform` to a specifier such as `docker-image://alpine`.
    pub contexts: BTreeMap<String, String>,
    /// Keys under which local named contexts are kept between builds, by the same names.
    pub context_shared_keys: BTreeMap<String, String>,
    /// Metadata of inputs, as JSON.
    pub input_metadata: BTreeMap<String, String>,
    /// The session that local contexts come from.
    pub session_id: String,
    /// Sessions of single local contexts.
    pub local_session_ids: BTreeMap<String, String>,
    /// The Dockerfile as a source that steps point into.
    pub source_map: Option<Arc<SourceMap>>,
    /// Which checks are on; none for what the Dockerfile says.
    pub lint: Option<LintConfig>,
    /// Convert all stages, not only those that the target needs (for checking).
    pub all_stages: bool,
}

impl ConvertOptions {
    /// No wishes, for a builder of this platform.
    pub fn new(build_platform: Platform) -> Self {
        Self {
            target: String::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target_platform: None,
            build_platforms: vec![build_platform],
            multi_platform: false,
            resolve_mode: ResolveMode::default(),
            network: NetMode::default(),
            hostname: String::new(),
            extra_hosts: Vec::new(),
            shm_size: 0,
            ulimits: Vec::new(),
            devices: Vec::new(),
            cgroup_parent: String::new(),
            linux_resources: None,
            cache_id_namespace: String::new(),
            no_cache: NoCache::default(),
            contexts: BTreeMap::new(),
            context_shared_keys: BTreeMap::new(),
            input_metadata: BTreeMap::new(),
            session_id: String::new(),
            local_session_ids: BTreeMap::new(),
            source_map: None,
            lint: None,
            all_stages: false,
        }
    }

    /// The platforms in force.
    pub(super) fn platforms(&self) -> Platforms {
        let build = self.build_platforms.first().cloned().unwrap_or_else(|| Platform::linux("amd64"));
        Platforms {
            target: self.target_platform.clone().unwrap_or_else(|| build.clone()),
            build,
            implicit_target: self.target_platform.is_none(),
        }
    }

    /// The session of a local context.
    pub(super) fn session_of(&self, local: &str) -> String {
        self.local_session_ids.get(local).unwrap_or(&self.session_id).clone()
    }
}

/// The platforms of one conversion.
#[derive(Debug, Clone)]
pub(super) struct Platforms {
    pub(super) target: Platform,
    pub(super) build: Platform,
    /// Nobody asked for the target platform, so the base image may decide.
    pub(super) implicit_target: bool,
}
