//! Reads a build request: old forms become new ones, and what makes no sense is refused before anything starts.

use std::collections::{BTreeMap, BTreeSet};

use kiln_frontend::CacheImport;
use kiln_proto::control::{CacheOptionsEntry, Exporter, SolveRequest};
use kiln_proto::{pb, sourcepolicy};
use tonic::Status;

use super::entitlements;
use crate::attest;
use crate::daemon::Daemon;

/// Versions of behaviour that a client may ask for (BuildKit `solver/llbsolver/compat`).
const COMPATIBILITY_VERSIONS: [i64; 3] = [10, 20, 30];
/// The one that holds when the client does not say.
const COMPATIBILITY_CURRENT: i64 = 30;
/// Frontend option that sets the time of what is exported.
const SOURCE_DATE_EPOCH_ARG: &str = "build-arg:SOURCE_DATE_EPOCH";
const SOURCE_DATE_EPOCH: &str = "source-date-epoch";

/// A build as it is asked for.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    pub id: String,
    pub session: String,
    pub definition: Option<pb::Definition>,
    pub frontend: String,
    pub frontend_opts: BTreeMap<String, String>,
    pub frontend_inputs: BTreeMap<String, pb::Definition>,
    pub exporters: Vec<Exporter>,
    /// The client is asked for further exporters once the result is known.
    pub session_exporter: bool,
    /// What is to be stated about the result.
    pub attestations: attest::Wanted,
    pub cache_exports: Vec<CacheOptionsEntry>,
    pub cache_imports: Vec<CacheImport>,
    pub entitlements: BTreeSet<String>,
    pub source_policy: Option<sourcepolicy::Policy>,
    pub policy_session: String,
    /// Which behaviour of old is kept.
    pub compatibility_version: i64,
    /// Neither shown nor remembered.
    pub internal: bool,
}

/// Reads a request.
///
/// # Errors
/// With BuildKit's text, where it has one for the same mistake.
pub fn read(request: SolveRequest, daemon: &Daemon) -> Result<BuildRequest, Status> {
    let cache = request.cache.unwrap_or_default();
    let mut cache_exports = cache.exports;
    if !cache.export_ref_deprecated.is_empty() {
        let mut attrs = cache.export_attrs_deprecated;
        attrs.insert("ref".to_owned(), cache.export_ref_deprecated);
        cache_exports.push(CacheOptionsEntry { r#type: "registry".to_owned(), attrs });
    }
    let cache_exports = without_duplicates(cache_exports)?;
    let mut cache_imports: Vec<CacheImport> = cache
        .imports
        .into_iter()
        .map(|entry| CacheImport { kind: entry.r#type, attrs: entry.attrs })
        .collect();
    cache_imports.extend(cache.import_refs_deprecated.into_iter().map(|reference| CacheImport {
        kind: "registry".to_owned(),
        attrs: BTreeMap::from([("ref".to_owned(), reference)]),
    }));

    let mut exporters = request.exporters;
    if exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        exporters
            .push(Exporter { r#type: request.exporter_deprecated, attrs: request.exporter_attrs_deprecated });
    }
    // One that is no number names a source: the frontend finds its time and tells the exporters.
    let epoch = request.frontend_attrs.get(SOURCE_DATE_EPOCH_ARG);
    if let Some(epoch) = epoch.filter(|epoch| epoch.is_empty() || epoch.parse::<i64>().is_ok()) {
        for exporter in &mut exporters {
            exporter.attrs.entry(SOURCE_DATE_EPOCH.to_owned()).or_insert_with(|| epoch.clone());
        }
    }
    if request.compatibility_version != 0 && !COMPATIBILITY_VERSIONS.contains(&request.compatibility_version)
    {
        let known = COMPATIBILITY_VERSIONS.map(|version| version.to_string()).join(", ");
        return Err(Status::invalid_argument(format!(
            "unsupported compatibility version {}: this daemon knows {known}",
            request.compatibility_version
        )));
    }
    let attestations = attest::wanted(&request.frontend_attrs).map_err(|error| error.to_status())?;
    if request.proxy_network {
        return Err(Status::unimplemented("the capturing proxy network is not supported by kilnd yet"));
    }
    Ok(BuildRequest {
        attestations,
        session_exporter: request.enable_session_exporter,
        entitlements: entitlements::grant(&request.entitlements, &daemon.settings.entitlements)?,
        id: request.r#ref,
        session: request.session,
        definition: request.definition,
        frontend: request.frontend,
        frontend_opts: request.frontend_attrs,
        frontend_inputs: request.frontend_inputs,
        exporters,
        cache_exports,
        cache_imports,
        source_policy: request.source_policy,
        policy_session: request.source_policy_session,
        compatibility_version: match request.compatibility_version {
            0 => COMPATIBILITY_CURRENT,
            version => version,
        },
        internal: request.internal,
    })
}

/// Two exports of one kind to one place would overwrite each other.
fn without_duplicates(exports: Vec<CacheOptionsEntry>) -> Result<Vec<CacheOptionsEntry>, Status> {
    let mut kept: Vec<CacheOptionsEntry> = Vec::new();
    let mut twice = Vec::new();
    for export in exports {
        if export.r#type == "inline" && kept.iter().any(|one| one.r#type == "inline") {
            continue;
        }
        if kept.contains(&export) {
            twice.push(export.r#type);
        } else {
            kept.push(export);
        }
    }
    if twice.is_empty() {
        Ok(kept)
    } else {
        Err(Status::unknown(format!("duplicate cache exports [{}]", twice.join(" "))))
    }
}
