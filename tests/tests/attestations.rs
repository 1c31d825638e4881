//! Attestations as other programs see them: in a registry by `skopeo`, beside files, in the metadata file; and what is never in them.

use kiln_testkit::{Place, Registry, program};
use kiln_tests::{holds, place_with_busybox, read};
use serde_json::Value;

const SECRET: &str = "kiln-test-secret-77c1e0aa";
const DOCKERFILE: &str = "FROM busybox AS b\nARG COLOUR\nRUN --mount=type=secret,id=token cat /run/secrets/token | wc -c > /size\n\
                          FROM scratch\nCOPY --from=b /size /\n";

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = program("skopeo").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn raw(reference: &str) -> Value {
    let name = format!("docker://{reference}");
    serde_json::from_slice(&skopeo(&["inspect", "--raw", "--tls-verify=false", &name])).unwrap()
}

/// The statements attached to the only image of an index.
fn statements(registry: &Registry, name: &str) -> Vec<Value> {
    let index = raw(&registry.reference(&format!("{name}:1")));
    let manifests = index["manifests"].as_array().unwrap();
    let [image, attached] = manifests.as_slice() else { panic!("{index}") };
    let annotations = &attached["annotations"];
    assert_eq!(annotations["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(annotations["vnd.docker.reference.digest"], image["digest"]);
    let manifest = raw(&format!("{}@{}", registry.reference(name), attached["digest"].as_str().unwrap()));
    let blobs = manifest["layers"].as_array().unwrap().iter();
    blobs
        .map(|blob| {
            serde_json::from_str(&read(&registry.blob_file(blob["digest"].as_str().unwrap()))).unwrap()
        })
        .collect()
}

fn place() -> (Place, Registry) {
    let (place, registry) = place_with_busybox();
    place.write("home/token", SECRET);
    place.write("work/Dockerfile", DOCKERFILE);
    (place, registry)
}

fn build(place: &Place, flags: &[&str]) {
    let secret = format!("id=token,src={}", place.path("home/token").display());
    let mut all = vec!["build", "--secret", &secret, "--build-arg", "COLOUR=blue"];
    all.extend_from_slice(flags);
    all.push(".");
    place.run(&all).success();
}

#[test]
fn a_pushed_image_says_how_it_was_made_and_no_secret() {
    let (place, registry) = place();
    let name = registry.reference("shop/app:1");
    build(&place, &["--provenance=mode=max,builder-id=https://builder.example", "--push", "-t", &name]);
    let all = statements(&registry, "shop/app");
    let [statement] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    let told = &statement["predicate"];
    assert_eq!(told["runDetails"]["builder"]["id"], "https://builder.example");
    let request = &told["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["secrets"][0]["id"], "token");
    assert_eq!(request["args"]["build-arg:COLOUR"], "blue");
    let base = told["buildDefinition"]["resolvedDependencies"][0]["uri"].as_str().unwrap();
    assert!(base.starts_with("pkg:docker/busybox@latest"), "{base}");
    let metadata = &told["runDetails"]["metadata"]["buildkit_metadata"];
    assert_eq!(metadata["source"]["infos"][0]["filename"], "Dockerfile");
    assert!(!metadata["layers"].as_object().unwrap().is_empty());
    assert!(!statement.to_string().contains(SECRET));
    assert_eq!(holds(&place.path("data"), SECRET), None);
}

#[test]
fn by_default_little_is_said_and_nothing_if_so_wished() {
    let (place, registry) = place();
    build(&place, &["--push", "-t", &registry.reference("shop/app:1")]);
    let all = statements(&registry, "shop/app");
    let request = &all[0]["predicate"]["buildDefinition"]["externalParameters"]["request"];
    assert!(
        request.get("secrets").is_none() && request["args"].get("build-arg:COLOUR").is_none(),
        "{request}"
    );
    let plain = registry.reference("shop/plain:1");
    build(&place, &["--provenance=false", "--push", "-t", &plain]);
    assert!(raw(&plain).get("manifests").is_none());
}

#[test]
fn files_and_the_metadata_file_come_with_provenance() {
    let (place, _registry) = place();
    build(&place, &["--provenance=version=v0.2", "--metadata-file", "meta.json", "-o", "out"]);
    let statement: Value = serde_json::from_str(&read(&place.path("work/out/provenance.json"))).unwrap();
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v0.2");
    assert_eq!(statement["subject"][0]["name"], "size");
    let metadata: Value = serde_json::from_str(&read(&place.path("work/meta.json"))).unwrap();
    let told = &metadata["buildx.build.provenance"];
    assert_eq!(told["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(told["invocation"]["parameters"]["frontend"], "dockerfile.v0");
    // What is asked for by default is only for images.
    build(&place, &["-o", "plain"]);
    assert!(!place.path("work/plain/provenance.json").exists());
}

#[test]
fn a_scanner_lists_what_is_in_the_image() {
    let (place, registry) = place();
    // A scanner of few words: one statement about all that it was shown.
    place.write(
        "work/scanner/Dockerfile",
        "FROM busybox\nCOPY scan /scan\nRUN chmod +x /scan\nENTRYPOINT [\"/scan\"]\n",
    );
    place.write(
        "work/scanner/scan",
        "#!/bin/sh\nset -e\nfile=$(ls $BUILDKIT_SCAN_SOURCE)\ncat >$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json <<END\n\
         {\"_type\":\"https://in-toto.io/Statement/v0.1\",\"predicateType\":\"https://spdx.dev/Document\",\"predicate\":\
         {\"name\":\"$BUILDKIT_SCAN_word\",\"files\":[{\"fileName\":\"/$file\"}]}}\nEND\n",
    );
    let scanner = registry.reference("tools/scanner:1");
    place.run(&["build", "--provenance=false", "--push", "-t", &scanner, "scanner"]).success();
    let sbom = format!("--attest=type=sbom,generator={scanner},word=hello");
    build(&place, &["--provenance=false", &sbom, "--push", "-t", &registry.reference("shop/app:1")]);
    let all = statements(&registry, "shop/app");
    let told = &all[0]["predicate"];
    assert_eq!((&told["name"], &told["files"][0]["fileName"]), (&"hello".into(), &"/size".into()));
    let comment = told["files"][0]["comment"].as_str().unwrap();
    assert!(comment.starts_with("layerID: sha256:"), "{comment}");

    build(&place, &["--provenance=false", &sbom, "-o", "out"]);
    assert!(read(&place.path("work/out/sbom.spdx.json")).contains("\"name\": \"size\""));
}

#[test]
fn images_of_one_epoch_have_the_same_bytes() {
    let (place, registry) = place();
    let (other, _other_registry) = self::place();
    let image = |place: &Place, name: &str| {
        let target = registry.reference(name);
        let output = format!("type=image,name={target},push=true,rewrite-timestamp=true");
        build(place, &["--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-o", &output]);
        raw(&target)["manifests"][0]["digest"].clone()
    };
    let first = image(&place, "shop/app:1");
    assert!(first.is_string());
    assert_eq!(first, image(&other, "shop/app:2"));
}
