use std::collections::BTreeMap;

use kiln_oci::{Digest, Platform, Timestamp};
use kiln_proto::pb;
use kiln_proto::prost::Message;
use serde_json::{Value, json};

use super::*;

fn args(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn options(entries: &[(&str, &str)]) -> ProvenanceOptions {
    ProvenanceOptions::parse(&args(entries)).unwrap()
}

fn capture() -> Capture {
    let mut capture = Capture::new();
    capture.add_image(ImageMaterial {
        reference: "docker.io/library/alpine:3".into(),
        platform: Some(Platform::linux("arm64")),
        digest: Some(Digest::sha256_of("alpine")),
        local: false,
    });
    capture.add_git("https://me:secret@git.example/r.git#main", &"c".repeat(40));
    capture.add_http("https://web.example/f", Digest::sha256_of("f"));
    capture.add_secret("key", true);
    capture.add_secret("key", false);
    capture.add_ssh("", true);
    capture
}

fn sample(options: ProvenanceOptions, capture: Capture) -> Value {
    let request = redact_request(
        "dockerfile.v0",
        &args(&[
            ("context", "https://me:secret@git.example/r.git#main"),
            ("filename", "Dockerfile"),
            ("build-arg:A", "b"),
            ("target", "t"),
            ("platform", "linux/arm64"),
            ("attest:provenance", ""),
            ("vcs:revision", "1"),
            ("vcs:source", "https://u:p@x.example/y"),
        ]),
    );
    let facts = BuildFacts {
        invocation_id: "id".into(),
        started: Timestamp::from_unix(1),
        compatibility_version: 30,
        dockerfile_version: "1.2".into(),
        custom_env: [("ci".to_owned(), json!("yes"))].into(),
        steps: Some(build_steps(definition()).unwrap()),
    };
    let mut provenance = Provenance::new(options, &request, capture, facts).unwrap();
    provenance.finish(Timestamp::from_unix(2).unwrap(), LayerFacts::new());
    let text = provenance.to_json().unwrap();
    assert!(!String::from_utf8(text.clone()).unwrap().contains("secret@"));
    serde_json::from_slice(&text).unwrap()
}

/// A source, a file operation on it, and the end.
fn definition() -> pb::Definition {
    let source = pb::Op {
        op: Some(pb::op::Op::Source(pb::SourceOp {
            identifier: "local://context".into(),
            attrs: args(&[("local.session", "s"), ("local.name", "n")]),
        })),
        platform: Some(pb::Platform {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let input =
        |op: &pb::Op| pb::Input { digest: Digest::sha256_of(op.encode_to_vec()).to_string(), index: 0 };
    let action = pb::FileAction {
        input: 0,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Mkdir(pb::FileActionMkDir {
            path: "/a".into(),
            mode: 0o755,
            ..Default::default()
        })),
    };
    let file = pb::Op {
        inputs: vec![input(&source)],
        op: Some(pb::op::Op::File(pb::FileOp { actions: vec![action] })),
        ..Default::default()
    };
    let end = pb::Op { inputs: vec![input(&file)], ..Default::default() };
    let info = pb::SourceInfo { filename: "Dockerfile".into(), data: "FROM x".into(), ..Default::default() };
    let position = |line| Some(pb::Position { line, character: 0 });
    let range = pb::Range { start: position(1), end: position(1) };
    let location = pb::Location { source_index: 0, ranges: vec![range] };
    let locations = pb::Locations { locations: vec![location] };
    pb::Definition {
        source: Some(pb::Source { locations: [(input(&file).digest, locations)].into(), infos: vec![info] }),
        def: [source, file, end].iter().map(|op| op.encode_to_vec().into()).collect(),
        ..Default::default()
    }
}

#[test]
fn version_1_in_full() {
    let told = sample(options(&[("builder-id", "https://b.example")]), capture());
    let definition = &told["buildDefinition"];
    assert_eq!(
        definition["externalParameters"],
        json!({
            "configSource": {
                "uri": "https://xxxxx:xxxxx@git.example/r.git#main",
                "digest": {"sha1": "c".repeat(40)},
                "path": "Dockerfile",
            },
            "request": {
                "frontend": "dockerfile.v0",
                "args": {"build-arg:A": "b", "target": "t"},
                "secrets": [{"id": "key"}],
                "ssh": [{"id": "default", "optional": true}],
                "compatibilityVersion": 30,
            },
        })
    );
    assert_eq!(
        definition["resolvedDependencies"],
        json!([
            {"uri": "pkg:docker/alpine@3?platform=linux%2Farm64", "digest": {"sha256": Digest::sha256_of("alpine").hex()}},
            {"uri": "https://xxxxx:xxxxx@git.example/r.git#main", "digest": {"sha1": "c".repeat(40)}},
            {"uri": "https://web.example/f", "digest": {"sha256": Digest::sha256_of("f").hex()}},
        ])
    );
    let internal = &definition["internalParameters"];
    assert_eq!((&internal["ci"], &internal["dockerfileVersion"]), (&json!("yes"), &json!("1.2")));
    assert_eq!(
        internal["buildConfig"]["llbDefinition"],
        json!([
            {"id": "step0", "op": {
                "Op": {"source": {"identifier": "local://context", "attrs": {"local.name": "n"}}},
                "platform": {"Architecture": "amd64", "OS": "linux"},
            }},
            {"id": "step1", "inputs": ["step0:0"], "op": {
                "Op": {"file": {"actions": [{"input": 0, "secondaryInput": -1, "output": 0, "Action": {"mkdir": {"path": "/a", "mode": 493}}}]}},
            }},
            {"id": "step2", "inputs": ["step1:0"], "op": {"Op": {}}},
        ])
    );
    let metadata = &told["runDetails"]["metadata"];
    assert_eq!(metadata["invocationId"], "id");
    assert_eq!(metadata["buildkit_hermetic"], true);
    assert_eq!(metadata["buildkit_completeness"], json!({"request": true, "resolvedDependencies": true}));
    assert_eq!(
        metadata["buildkit_metadata"],
        json!({
            "vcs": {"revision": "1", "source": "https://xxxxx:xxxxx@x.example/y"},
            "source": {
                "locations": {"step1": {"locations": [{"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}]}},
                "infos": [{"filename": "Dockerfile", "data": "RlJPTSB4"}],
            },
        })
    );
    assert_eq!(told["runDetails"]["builder"]["id"], "https://b.example");
}

#[test]
fn min_tells_nothing_private() {
    let mut capture = capture();
    capture.add_local("context");
    capture.network_access = true;
    let told = sample(options(&[("mode", "min"), ("version", "v0.2")]), capture);
    let parameters = &told["invocation"]["parameters"];
    assert_eq!(
        *parameters,
        json!({"frontend": "dockerfile.v0", "args": {"target": "t"}, "locals": [{"name": "context"}], "compatibilityVersion": 30})
    );
    assert!(told.get("buildConfig").is_none());
    assert_eq!(told["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(told["invocation"]["configSource"]["entryPoint"], "Dockerfile");
    let metadata = &told["metadata"];
    assert_eq!(
        metadata["completeness"],
        json!({"parameters": false, "environment": true, "materials": false})
    );
    assert!(metadata.get("https://mobyproject.org/buildkit@v1#hermetic").is_none());
}

#[test]
fn complete_or_not_at_all() {
    let mut capture = capture();
    capture.add_local("context");
    let wanted = options(&[("complete-materials", "true")]);
    let error =
        Provenance::new(wanted.clone(), &Request::default(), capture, BuildFacts::default()).unwrap_err();
    assert!(error.to_string().ends_with("Uncaptured local sources:\n  - context\n    reason: local_source"));
    assert!(Provenance::new(wanted, &Request::default(), Capture::new(), BuildFacts::default()).is_ok());
}

#[test]
fn reads_options() {
    assert_eq!(options(&[("mode", "full")]).mode, ProvenanceMode::Max);
    assert!(options(&[("inline-only", "true")]).inline_only);
    for (key, value, message) in [
        ("mode", "some", r#"invalid mode "some""#),
        ("version", "v2", "invalid provenance SLSA version: v2"),
        ("version", "", "provenance SLSA version cannot be empty"),
        (
            "reproducible",
            "x",
            r#"failed to parse reproducible flag "x": strconv.ParseBool: parsing "x": invalid syntax"#,
        ),
    ] {
        assert_eq!(ProvenanceOptions::parse(&args(&[(key, value)])).unwrap_err().to_string(), message);
    }
}

#[test]
fn masks_passwords() {
    for (text, masked) in [
        ("https://u:p@h/x?y#z", "https://xxxxx:xxxxx@h/x?y#z"),
        ("https://u@h", "https://xxxxx@h"),
        ("https://:p@h/", "https://:xxxxx@h/"),
        ("https://h/a@b", "https://h/a@b"),
        ("git@h:x/y", "git@h:x/y"),
        ("https://a@b:c@h/", "https://xxxxx:xxxxx@h/"),
        ("plain", "plain"),
    ] {
        assert_eq!(redact_credentials(text), masked);
    }
}

#[test]
fn tagged_images_cover_their_digests() {
    let mut capture = Capture::new();
    let image = |reference: String| ImageMaterial { reference, platform: None, digest: None, local: false };
    capture.add_image(image(format!("docker.io/library/a:latest@{}", Digest::sha256_of("a"))));
    capture.add_image(image(format!("docker.io/library/b@{}", Digest::sha256_of("b"))));
    capture.add_image(image("docker.io/library/a:latest".into()));
    capture.finish().unwrap();
    assert_eq!(capture.images.len(), 2);
}
