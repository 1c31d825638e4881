//! The provenance of a finished build for `--metadata-file`, out of the daemon's record of the build.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_client::Client;
use kiln_proto::control::{BuildResultInfo, Descriptor};
use serde_json::{Map, Value, json};

use crate::error::{Context, Result};
use crate::settings::Settings;

const KEY: &str = "buildx.build.provenance";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const SLSA: &str = "https://slsa.dev/provenance/";
const SLSA_V1: &str = "https://slsa.dev/provenance/v1";
const BUILD_TYPE: &str = "https://mobyproject.org/buildkit@v1";
/// The largest statement that is read.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// How much of it is written down (`BUILDX_METADATA_PROVENANCE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Min,
    Max,
    Disabled,
}

impl Mode {
    /// From the environment.
    pub fn of(settings: &Settings) -> Self {
        match settings.var("BUILDX_METADATA_PROVENANCE").as_deref() {
            Some("max") => Mode::Max,
            Some("disabled") => Mode::Disabled,
            _ if settings.flag("BUILDX_METADATA_PROVENANCE") == Some(false) => Mode::Disabled,
            _ => Mode::Min,
        }
    }
}

/// What the record of a build says about how its results were made, as values for the metadata file.
pub async fn of_record(client: &Client, build: &str, mode: Mode) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    if mode == Mode::Disabled {
        return Ok(found);
    }
    let what = "read the build's record";
    let Some(record) = client.record(build).await.when(what)? else { return Ok(found) };
    let mut statements = Vec::new();
    for (platform, result) in &record.results {
        statements.push((format!("{KEY}/{platform}"), result));
    }
    if let (true, Some(result)) = (statements.is_empty(), &record.result) {
        statements.push((KEY.to_owned(), result));
    }
    for (key, result) in statements {
        let Some((blob, kind)) = statement(result) else { continue };
        let bytes = client.blob(blob, STATEMENT_BYTES_MAX).await.when(what)?;
        let told: Map<String, Value> =
            serde_json::from_slice(&bytes).when("understand the build's provenance")?;
        let told = if kind == SLSA_V1 { to_v02(&told) } else { told };
        let json = serde_json::to_vec(&shortened(told, mode)).when("write the build's provenance")?;
        found.insert(key, STANDARD.encode(json));
    }
    Ok(found)
}

fn statement(result: &BuildResultInfo) -> Option<(&Descriptor, &str)> {
    let is_provenance = |one: &&Descriptor| {
        one.media_type == IN_TOTO
            && one.annotations.get(PREDICATE_TYPE).is_some_and(|kind| kind.starts_with(SLSA))
    };
    let blob = result.attestations.iter().find(is_provenance)?;
    Some((blob, blob.annotations[PREDICATE_TYPE].as_str()))
}

fn shortened(mut told: Map<String, Value>, mode: Mode) -> Map<String, Value> {
    if mode == Mode::Min {
        told.remove("buildConfig");
        told.remove("metadata");
    }
    told
}

/// The form of version 0.2, which is the one that tools look for in metadata files.
fn to_v02(told: &Map<String, Value>) -> Map<String, Value> {
    let nothing = Value::Null;
    let at = |path: &[&str]| {
        let from = path.split_first().and_then(|(first, rest)| Some((told.get(*first)?, rest)));
        from.map_or(&nothing, |(value, rest)| {
            rest.iter().fold(value, |value, key| value.get(key).unwrap_or(&nothing))
        })
    };
    let mut environment =
        at(&["buildDefinition", "internalParameters"]).as_object().cloned().unwrap_or_default();
    let config = environment.remove("buildConfig");
    let platform = environment.remove("builderPlatform").unwrap_or_default();
    environment.insert("platform".to_owned(), platform);
    let source = |key: &str| at(&["buildDefinition", "externalParameters", "configSource", key]).clone();
    let metadata = |key: &str| at(&["runDetails", "metadata", key]).clone();
    let complete = |key: &str| at(&["runDetails", "metadata", "buildkit_completeness", key]).clone();
    let or_false = |value: Value| if value.is_null() { false.into() } else { value };
    without_null(json!({
        "builder": { "id": at(&["runDetails", "builder", "id"]) },
        "buildType": BUILD_TYPE,
        "materials": at(&["buildDefinition", "resolvedDependencies"]),
        "invocation": {
            "configSource": { "uri": source("uri"), "digest": source("digest"), "entryPoint": source("path") },
            "parameters": at(&["buildDefinition", "externalParameters", "request"]),
            "environment": environment,
        },
        "buildConfig": config,
        "metadata": {
            "buildInvocationID": metadata("invocationId"),
            "buildStartedOn": metadata("startedOn"),
            "buildFinishedOn": metadata("finishedOn"),
            "completeness": {
                "parameters": or_false(complete("request")),
                "environment": true,
                "materials": or_false(complete("resolvedDependencies")),
            },
            "reproducible": or_false(metadata("buildkit_reproducible")),
            "https://mobyproject.org/buildkit@v1#metadata": metadata("buildkit_metadata"),
            "https://mobyproject.org/buildkit@v1#hermetic": metadata("buildkit_hermetic"),
        },
    }))
}

/// Leaves out what is not said.
fn without_null(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { return Map::new() };
    let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
    kept.map(|(key, value)| match value {
        Value::Object(_) => (key, without_null(value).into()),
        value => (key, value),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_in_the_form_that_tools_look_for() {
        let told = json!({
            "buildDefinition": {
                "resolvedDependencies": [{ "uri": "pkg:docker/a@1" }],
                "externalParameters": {
                    "configSource": { "path": "Dockerfile" },
                    "request": { "frontend": "dockerfile.v0" },
                },
                "internalParameters": { "builderPlatform": "linux/amd64", "buildConfig": {}, "ci": "x" },
            },
            "runDetails": {
                "builder": { "id": "" },
                "metadata": { "invocationId": "i", "buildkit_completeness": { "request": true } },
            },
        });
        let told = to_v02(told.as_object().unwrap());
        let invocation = &told["invocation"];
        assert_eq!(invocation["configSource"], json!({ "entryPoint": "Dockerfile" }));
        assert_eq!(invocation["environment"], json!({ "platform": "linux/amd64", "ci": "x" }));
        assert_eq!(told["materials"], json!([{ "uri": "pkg:docker/a@1" }]));
        let completeness = json!({ "parameters": true, "environment": true, "materials": false });
        assert_eq!(told["metadata"]["completeness"], completeness);
        assert!(told.contains_key("buildConfig"));
        let short = shortened(told, Mode::Min);
        assert_eq!(short.keys().collect::<Vec<_>>(), ["buildType", "builder", "invocation", "materials"]);
    }
}
