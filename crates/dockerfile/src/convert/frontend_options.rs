//! Frontend attributes: the flat map in which clients send what a build asks for.

use super::options::{ConvertOptions, NoCache};
use super::resources::{linux_resources, ulimits};
use crate::lint::{LintConfig, LintOptionError};
use crate::values::{CsvError, NumberError, fields, parse_bool, parse_int, quote};
use kiln_llb::{ExtraHost, NetMode, ResolveMode};
use kiln_oci::{Platform, PlatformError, Reference, ReferenceError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use thiserror::Error;

const DEFAULT_SBOM_GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";

/// Why attributes cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OptionError {
    #[error("failed to parse target platform {word}: {error}")]
    Platform { word: String, error: PlatformError },
    #[error("invalid image-resolve-mode: {0}")]
    ResolveMode(String),
    #[error("failed to parse {0}: {1}")]
    Record(&'static str, CsvError),
    #[error("failed to parse additional hosts: invalid key-value pair {0}")]
    HostPair(String),
    #[error("failed to parse additional hosts: failed to parse IP {0}")]
    HostIp(String),
    #[error("failed to parse {0}: {1}")]
    Number(&'static str, NumberError),
    #[error("failed to parse ulimit: invalid ulimit argument: {0}")]
    Ulimit(String),
    #[error("failed to parse ulimit: invalid ulimit type: {0}")]
    UlimitType(String),
    #[error(
        "failed to parse ulimit: too many limit value arguments - {0}, can only have up to two, `soft[:hard]`"
    )]
    UlimitValues(String),
    #[error(
        "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {0}"
    )]
    UlimitUnlimited(i64),
    #[error(
        "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
    )]
    UlimitOrder { soft: i64, hard: i64 },
    #[error("failed to parse resource limits: invalid {key} value: {value}: {reason}")]
    Resource { key: &'static str, value: String, reason: String },
    #[error("invalid netmode {0}")]
    Network(String),
    #[error("invalid boolean value for multi-platform: {0}")]
    MultiPlatform(String),
    #[error("conflicting config: returning multiple target platforms is not allowed")]
    SeveralPlatforms,
    #[error("failed to unmarshal cache-imports ({}): {reason}", quote(.value))]
    CacheImports { value: String, reason: String },
    #[error("failed to parse {kind}: {error}")]
    Attestation { kind: String, error: CsvError },
    #[error("unknown attestation type {}", quote(.0))]
    AttestationType(String),
    #[error("sbom generator cannot be empty")]
    SbomGeneratorEmpty,
    #[error("failed to parse sbom scanner {word}: {error}")]
    SbomGenerator { word: String, error: ReferenceError },
    #[error("failed to parse build-arg:BUILDKIT_DOCKERFILE_CHECK: {0}")]
    Lint(LintOptionError),
}

/// Attestations that are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestationOptions {
    /// A bill of materials.
    pub sbom: Option<SbomOptions>,
    /// How the result was made, with its options as given.
    pub provenance: Option<BTreeMap<String, String>>,
}

/// A cache to import.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CacheImport {
    #[serde(rename = "Type", alias = "type", default)]
    pub kind: String,
    #[serde(rename = "Attrs", alias = "attrs", default)]
    pub attrs: BTreeMap<String, String>,
}

/// How a bill of materials is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SbomOptions {
    /// The image of the scanner.
    pub generator: String,
    pub parameters: BTreeMap<String, String>,
}

/// All that attributes say.
#[derive(Debug, Clone)]
pub struct FrontendOptions {
    /// What holds for every platform; its target platform is not set.
    pub convert: ConvertOptions,
    /// Empty if none was asked for.
    pub target_platforms: Vec<Platform>,
    pub cache_imports: Vec<CacheImport>,
    pub sbom: Option<SbomOptions>,
}

/// Attributes, of which one that is missing is as good as empty.
#[derive(Clone, Copy)]
pub(super) struct Attrs<'a>(&'a BTreeMap<String, String>);

impl<'a> Attrs<'a> {
    pub(super) fn get(self, key: &str) -> &'a str {
        self.0.get(key).map(String::as_str).unwrap_or_default()
    }
}

impl FrontendOptions {
    /// Understands attributes, for a builder of this platform.
    pub fn parse(attrs: &BTreeMap<String, String>, build_platform: Platform) -> Result<Self, OptionError> {
        let values = Attrs(attrs);
        let get = |key: &'static str| values.get(key);
        let target_platforms = platforms(get("platform"))?;
        let mut convert = ConvertOptions::new(build_platform);
        convert.resolve_mode = resolve_mode(get("image-resolve-mode"))?;
        convert.extra_hosts = extra_hosts(get("add-hosts"))?;
        convert.shm_size = match get("shm-size") {
            "" => 0,
            size => parse_int(size, 64).map_err(|error| OptionError::Number("shm size", error))?,
        };
        convert.ulimits = ulimits(get("ulimit"))?;
        convert.linux_resources = linux_resources(values)?;
        convert.network = network(get("force-network-mode"))?;
        convert.no_cache = match attrs.get("no-cache").map(String::as_str) {
            None => NoCache::None,
            Some("") => NoCache::All,
            Some(names) => NoCache::Stages(names.split(',').map(str::to_owned).collect()),
        };
        convert.multi_platform = multi_platform(values, target_platforms.len())?;
        let cache_imports = cache_imports(get("cache-imports"), get("cache-from"))?;
        let sbom = AttestationOptions::parse(attrs)?.sbom;
        let with_prefix = |prefix: &str| -> BTreeMap<String, String> {
            let named = |(key, value): (&String, &String)| {
                Some((key.strip_prefix(prefix)?.to_owned(), value.clone()))
            };
            attrs.iter().filter_map(named).collect()
        };
        convert.build_args = with_prefix("build-arg:");
        convert.labels = with_prefix("label:");
        convert.contexts = with_prefix("context:");
        convert.context_shared_keys = with_prefix("sharedkey:localdir:");
        convert.input_metadata = with_prefix("input-metadata:");
        convert.local_session_ids = with_prefix("local-sessionid:");
        convert.cache_id_namespace = get("build-arg:BUILDKIT_CACHE_MOUNT_NS").to_owned();
        convert.cgroup_parent = get("cgroup-parent").to_owned();
        convert.target = get("target").to_owned();
        convert.hostname = match get("build-arg:BUILDKIT_SANDBOX_HOSTNAME") {
            "" => get("hostname").to_owned(),
            name => name.to_owned(),
        };
        let check = attrs.get("build-arg:BUILDKIT_DOCKERFILE_CHECK");
        convert.lint =
            check.map(|options| LintConfig::parse(options)).transpose().map_err(OptionError::Lint)?;
        Ok(Self { convert, target_platforms, cache_imports, sbom })
    }

    /// One conversion for each platform: those asked for, or one without.
    pub fn per_platform(&self) -> Vec<ConvertOptions> {
        let for_platform =
            |target_platform: Option<Platform>| ConvertOptions { target_platform, ..self.convert.clone() };
        match self.target_platforms.as_slice() {
            [] => vec![for_platform(None)],
            platforms => platforms.iter().cloned().map(Some).map(for_platform).collect(),
        }
    }
}

fn platforms(list: &str) -> Result<Vec<Platform>, OptionError> {
    if list.is_empty() {
        return Ok(Vec::new());
    }
    let one = |word: &str| match Platform::parse(word) {
        Ok(platform) => Ok(platform.normalized()),
        Err(error) => Err(OptionError::Platform { word: word.to_owned(), error }),
    };
    list.split(',').map(one).collect()
}

fn resolve_mode(word: &str) -> Result<ResolveMode, OptionError> {
    match word {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::ForcePull),
        "local" => Ok(ResolveMode::PreferLocal),
        other => Err(OptionError::ResolveMode(other.to_owned())),
    }
}

fn network(word: &str) -> Result<NetMode, OptionError> {
    match word {
        "" | "sandbox" => Ok(NetMode::Sandbox),
        "none" => Ok(NetMode::None),
        "host" => Ok(NetMode::Host),
        other => Err(OptionError::Network(other.to_owned())),
    }
}

fn extra_hosts(record: &str) -> Result<Vec<ExtraHost>, OptionError> {
    if record.is_empty() {
        return Ok(Vec::new());
    }
    let fields = fields(record).map_err(|error| OptionError::Record("additional hosts", error))?;
    let host = |field: &String| {
        let lower = field.to_lowercase();
        let (host, ip) = lower.split_once('=').ok_or_else(|| OptionError::HostPair(field.clone()))?;
        let address: IpAddr = ip.parse().map_err(|_| OptionError::HostIp(ip.to_owned()))?;
        Ok(ExtraHost { host: host.to_owned(), ip: address.to_canonical().to_string() })
    };
    fields.iter().map(host).collect()
}

fn multi_platform(attrs: Attrs<'_>, platforms: usize) -> Result<bool, OptionError> {
    let asked = match attrs.get("build-arg:BUILDKIT_MULTI_PLATFORM") {
        "" => attrs.get("multi-platform"),
        word => word,
    };
    if asked.is_empty() {
        return Ok(platforms > 1);
    }
    match parse_bool(asked) {
        None => Err(OptionError::MultiPlatform(asked.to_owned())),
        Some(false) if platforms > 1 => Err(OptionError::SeveralPlatforms),
        Some(multi) => Ok(multi),
    }
}

fn cache_imports(json: &str, references: &str) -> Result<Vec<CacheImport>, OptionError> {
    let mut imports: Vec<CacheImport> = match json {
        "" => Vec::new(),
        json => serde_json::from_str(json).map_err(|error| OptionError::CacheImports {
            value: json.to_owned(),
            reason: error.to_string(),
        })?,
    };
    let registry = |reference: &str| CacheImport {
        kind: "registry".to_owned(),
        attrs: BTreeMap::from([("ref".to_owned(), reference.to_owned())]),
    };
    if !references.is_empty() {
        imports.extend(references.split(',').map(registry));
    }
    Ok(imports)
}

impl AttestationOptions {
    /// Reads `attest:*`, and build arguments which say the same.
    ///
    /// # Errors
    /// A kind of attestation that there is not, or a value that cannot be read.
    pub fn parse(attrs: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let mut asked = Self::default();
        for (key, value) in attrs {
            let kind = key.strip_prefix("attest:").or_else(|| key.strip_prefix("build-arg:BUILDKIT_ATTEST_"));
            let Some(kind) = kind.map(str::to_lowercase) else { continue };
            let fields = match value.as_str() {
                "" => Vec::new(),
                record => {
                    fields(record).map_err(|error| OptionError::Attestation { kind: kind.clone(), error })?
                }
            };
            match kind.as_str() {
                "provenance" => asked.provenance = Some(pairs(&fields)),
                "sbom" => asked.sbom = Some(sbom_options(&fields)?),
                _ => return Err(OptionError::AttestationType(kind)),
            }
        }
        Ok(asked)
    }
}

/// `key=value` each.
fn pairs(fields: &[String]) -> BTreeMap<String, String> {
    let pair = |field: &String| match field.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (field.clone(), String::new()),
    };
    fields.iter().map(pair).collect()
}

fn sbom_options(fields: &[String]) -> Result<SbomOptions, OptionError> {
    let mut parameters = pairs(fields);
    let word = parameters.remove("generator").unwrap_or_else(|| DEFAULT_SBOM_GENERATOR.to_owned());
    match Reference::parse(&word) {
        _ if word.is_empty() => Err(OptionError::SbomGeneratorEmpty),
        Ok(reference) => Ok(SbomOptions { generator: reference.with_default_tag().to_string(), parameters }),
        Err(error) => Err(OptionError::SbomGenerator { word, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_llb::Ulimit;

    fn parse(pairs: &[(&str, &str)]) -> Result<FrontendOptions, OptionError> {
        let attrs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        FrontendOptions::parse(&attrs, Platform::linux("amd64"))
    }

    #[test]
    fn attributes_are_understood() {
        let options = parse(&[
            ("platform", "linux/amd64,linux/arm64/v8"),
            ("add-hosts", "A=10.0.0.1,b=::1"),
            ("ulimit", "nofile=10:20"),
            ("build-arg:X", "1"),
            ("label:a", "b"),
            ("context:base", "docker-image://x"),
            ("no-cache", "a,b"),
            ("memory", "1024"),
            ("attest:sbom", "generator=x,k=v"),
            ("cache-imports", r#"[{"Type":"local","Attrs":{"src":"d"}}]"#),
            ("cache-from", "r"),
            ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "h"),
        ])
        .unwrap();
        assert_eq!(options.target_platforms.len(), 2);
        assert!(options.convert.multi_platform);
        assert_eq!(options.convert.extra_hosts[0], ExtraHost { host: "a".into(), ip: "10.0.0.1".into() });
        assert_eq!(options.convert.ulimits, [Ulimit { name: "nofile".into(), soft: 10, hard: 20 }]);
        assert!(options.convert.no_cache.applies_to("B") && !options.convert.no_cache.applies_to("c"));
        assert_eq!(options.convert.linux_resources.as_ref().unwrap().memory, 1024);
        assert_eq!(options.sbom.as_ref().unwrap().generator, "docker.io/library/x:latest");
        assert_eq!(options.cache_imports.len(), 2);
        assert_eq!(options.convert.hostname, "h");
        assert_eq!(options.per_platform()[1].target_platform, Some(Platform::linux("arm64")));
    }

    #[test]
    fn bad_attributes_are_refused() {
        for (key, value, text) in [
            ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
            ("add-hosts", "a", "failed to parse additional hosts: invalid key-value pair a"),
            ("add-hosts", "a=b", "failed to parse additional hosts: failed to parse IP b"),
            ("ulimit", "foo=1", "failed to parse ulimit: invalid ulimit type: foo"),
            ("memory", "0", "failed to parse resource limits: invalid memory value: 0: must be > 0"),
            (
                "cpusetcpus",
                "3-1",
                "failed to parse resource limits: invalid cpusetcpus value: 3-1: invalid cpuset range \"3-1\"",
            ),
            ("force-network-mode", "x", "invalid netmode x"),
            ("multi-platform", "x", "invalid boolean value for multi-platform: x"),
            ("attest:foo", "", "unknown attestation type \"foo\""),
        ] {
            assert_eq!(parse(&[(key, value)]).unwrap_err().to_string(), text);
        }
    }
}
