//! The Dockerfile service over a bridge to nothing.

mod support;

use kiln_frontend::{Detail, Error, Refs, Solution, dockerfile};
use kiln_llb::{Constraints, LocalSource, MarshalOptions, State};
use kiln_oci::Platform;
use support::{Fake, Promise, request, sources};
use tonic::Code;

const BASE: &str = "docker.io/library/base:latest";
const CONFIG: &str =
    r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"]},"rootfs":{"type":"layers"}}"#;
const COPIES: &str = "FROM base\nCOPY . /\n";

async fn build(fake: &Fake, opts: &[(&str, &str)]) -> Result<Solution<Promise>, Error> {
    dockerfile::build(fake, &request(opts)).await
}

fn graph(solution: &Solution<Promise>) -> kiln_proto::pb::Definition {
    let Refs::Single(Some(promise)) = &solution.refs else { panic!("one result") };
    promise.0.clone()
}

#[tokio::test]
async fn a_build_from_local_directories() {
    let fake =
        Fake::new().dockerfile(COPIES).image(BASE, CONFIG).file("local://context", ".dockerignore", "*.o\n");
    let solution = build(&fake, &[]).await.expect("built");
    assert_eq!(
        fake.solved()[..2],
        ["[internal] load build definition from Dockerfile", "[internal] load .dockerignore"]
    );
    let definition = &fake.requests.lock().expect("requests")[0];
    let (identifier, attrs) = sources(definition.definition.as_ref().expect("graph")).remove(0);
    assert_eq!(identifier, "local://dockerfile");
    assert_eq!(attrs["local.followpaths"], r#"["Dockerfile","Dockerfile.dockerignore","dockerfile"]"#);
    assert_eq!(
        (attrs["local.session"].as_str(), attrs["local.sharedkeyhint"].as_str()),
        ("session", "dockerfile")
    );
    let context = sources(&graph(&solution)).into_iter().find(|(name, _)| name == "local://context");
    assert_eq!(context.expect("the context").1["local.excludepatterns"], r#"["*.o"]"#);
    let config = String::from_utf8(solution.metadata["containerimage.config"].to_vec()).expect("text");
    assert!(config.contains("\"A=b\""), "{config}");
    assert!(solution.metadata.contains_key("containerimage.base.config"));
    let looked_at = fake.looked_at.lock().expect("looked at");
    assert_eq!(looked_at[0].1.log_name, "[internal] load metadata for docker.io/library/base:latest");
}

#[tokio::test]
async fn the_dockerfile_may_be_in_lower_case_and_bring_its_own_ignore_file() {
    let fake = Fake::new()
        .file("local://dockerfile", "sub/dockerfile", COPIES)
        .file("local://dockerfile", "sub/Dockerfile.dockerignore", "a\n!b")
        .image(BASE, CONFIG);
    let solution = build(&fake, &[("filename", "sub/Dockerfile")]).await.expect("built");
    let context = sources(&graph(&solution)).into_iter().find(|(name, _)| name == "local://context");
    assert_eq!(context.expect("the context").1["local.excludepatterns"], r#"["a","!b"]"#);
    assert!(
        !fake.solved().iter().any(|name| name.contains(".dockerignore")),
        "the other one is not asked for"
    );
}

#[tokio::test]
async fn a_missing_dockerfile() {
    let error = build(&Fake::new(), &[("filename", "x/y")]).await.expect_err("missing");
    assert_eq!(error.to_string(), "failed to read dockerfile: open /x/y: no such file or directory");
    let error =
        build(&Fake { fail_solve: Some(Error::cancelled()), ..Fake::new() }, &[]).await.expect_err("fails");
    assert_eq!(error.to_string(), "failed to resolve dockerfile: context canceled");
    assert_eq!(error.code(), Code::Cancelled);
}

#[tokio::test]
async fn errors_name_the_lines() {
    let fake = Fake::new().dockerfile("FROM scratch\nRUM x\n");
    let error = build(&fake, &[]).await.expect_err("unknown instruction");
    assert!(error.to_string().contains("unknown instruction: RUM (did you mean RUN?)"), "{error}");
    let Some(Detail::Source(source)) = error.details().first() else { panic!("{:?}", error.details()) };
    assert_eq!(source.ranges[0].start.expect("start").line, 2);
    let info = source.info.as_ref().expect("info");
    assert_eq!((info.filename.as_str(), info.language.as_str()), ("Dockerfile", "Dockerfile"));
    assert!(info.definition.is_some());
}

#[tokio::test]
async fn failures_of_the_bridge_keep_their_class() {
    let fake = Fake::new().dockerfile("FROM nothing\n");
    let error = build(&fake, &[]).await.expect_err("no such image");
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.to_string().ends_with("docker.io/library/nothing:latest: not found"), "{error}");
    assert!(error.has_source());
}

#[tokio::test]
async fn warnings_are_shown_at_the_definition() {
    let fake = Fake::new().dockerfile("FROM scratch as x\n");
    build(&fake, &[]).await.expect("built");
    let warnings = fake.warnings.lock().expect("warnings");
    let short = String::from_utf8_lossy(&warnings[0].short);
    assert!(short.starts_with("FromAsCasing:") && short.ends_with("(line 1)"), "{short}");
    assert!(warnings[0].vertex.starts_with("sha256:") && warnings[0].level == 1);
}

#[tokio::test]
async fn several_platforms_ask_for_each_image_once() {
    let other = "FROM --platform=$BUILDPLATFORM base AS b\nFROM base\nCOPY --from=b / /\n";
    let fake = Fake::new().dockerfile(other).image(BASE, CONFIG);
    let opts = [("platform", "linux/amd64,linux/arm64")];
    let solution = build(&fake, &opts).await.expect("built");
    let Refs::Map(refs) = &solution.refs else { panic!("several") };
    assert_eq!(refs.keys().collect::<Vec<_>>(), ["linux/amd64", "linux/arm64"]);
    assert!(solution.metadata.contains_key("containerimage.config/linux/arm64"));
    assert_eq!(fake.looked_at.lock().expect("looked at").len(), 2, "once for each platform");
}

#[tokio::test]
async fn remote_contexts() {
    let url = "https://host.example/context.tar.gz";
    let fake = Fake::new().file(url, "context", &[0x1f, 0x8b, 8, 0][..]).image(BASE, CONFIG);
    let error = build(&fake, &[("context", url)]).await.expect_err("no Dockerfile in there");
    assert!(error.to_string().starts_with("failed to read dockerfile"), "{error}");
    assert_eq!(fake.solved()[0], "[internal] load remote build context");

    // A download that is no archive is the Dockerfile.
    let fake = Fake::new().file(url, "context", "FROM scratch\nCOPY context /x\n");
    let solution = build(&fake, &[("context", url)]).await.expect("built");
    assert_eq!(sources(&graph(&solution))[0].0, url);

    let git = "https://host.example/repo.git?branch=main&subdir=sub";
    let source = "git://host.example/repo.git#refs/heads/main:sub";
    let fake = Fake::new().file(source, "Dockerfile", COPIES).image(BASE, CONFIG);
    build(&fake, &[("context", git)]).await.expect("built");
    assert_eq!(fake.solved()[0], format!("[internal] load git source {git}"));
}

#[tokio::test]
async fn inputs_take_the_place_of_directories() {
    let fake = Fake::new().file("local://elsewhere", "Dockerfile", COPIES).image(BASE, CONFIG);
    let state = State::local("elsewhere", LocalSource::default(), Constraints::new());
    let definition = state.marshal(&MarshalOptions::new(Platform::linux("amd64"), "x")).expect("a graph");
    let mut asked = request(&[]);
    asked.inputs.insert("dockerfile".into(), definition.clone());
    asked.inputs.insert("context".into(), definition);
    let solution = dockerfile::build(&fake, &asked).await.expect("built");
    assert!(sources(&graph(&solution)).iter().any(|(name, _)| name == "local://elsewhere"));
    asked.opts.insert("dockerfilekey".into(), "mine".into());
    let error = dockerfile::build(&fake, &asked).await.expect_err("the directory is insisted upon");
    assert!(error.to_string().starts_with("failed to read dockerfile"), "{error}");
}

#[tokio::test]
async fn other_frontends_are_asked_with_all_options() {
    let built_in = Fake::new().dockerfile("# syntax=docker/dockerfile:1\nFROM scratch\n");
    build(&built_in, &[]).await.expect("built in");
    let fake = Fake::new().dockerfile("# syntax=r.example/other:1 with options\nFROM scratch\n");
    let error = build(&fake, &[("target", "t")]).await.expect_err("no such frontend");
    assert!(error.has_source());
    let asked = fake.requests.lock().expect("requests").last().cloned().expect("asked");
    assert_eq!(asked.frontend, "gateway.v0");
    assert_eq!(asked.frontend_opts["source"], "r.example/other:1");
    assert_eq!(asked.frontend_opts["cmdline"], "r.example/other:1 with options");
    assert_eq!(asked.frontend_opts["target"], "t");
    let error = build(&fake, &[("build-arg:BUILDKIT_SYNTAX", "x/y z")]).await.expect_err("no such frontend");
    assert!(error.to_string().starts_with("failed with build-arg:BUILDKIT_SYNTAX = x/y z: "), "{error}");
    build(&fake, &[("cmdline", "x")]).await.expect("it is the other frontend already");
}

#[tokio::test]
async fn subrequests() {
    let fake = Fake::new().dockerfile("ARG x=1\nFROM scratch AS one\nFROM one as two\n");
    let text = async |name: &str, key: &str| {
        let solution = build(&fake, &[("requestid", name)]).await.expect(name);
        assert_eq!(solution.refs, Refs::Single(None));
        String::from_utf8(solution.metadata[key].to_vec()).expect("text")
    };
    assert!(text("frontend.targets", "result.txt").await.contains("two (default)"));
    assert!(text("frontend.outline", "result.json").await.contains("\"two\""));
    assert!(text("frontend.subrequests.describe", "result.txt").await.contains("outline"));
    assert_eq!(text("frontend.lint", "result.statuscode").await, "1");
    assert_eq!(text("frontend.lint", "version").await, "1.0.0");
    let error = build(&fake, &[("requestid", "frontend.nothing")]).await.expect_err("unknown");
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (Code::Unimplemented, "unsupported request frontend.nothing")
    );
    assert!(matches!(error.details(), [Detail::Subrequest(_)]));
}

#[tokio::test]
async fn capabilities() {
    let fake = Fake::new().dockerfile("FROM scratch\n");
    let error = build(&fake, &[("frontend.caps", "new")]).await.expect_err("unknown");
    assert_eq!(error.code(), Code::Unimplemented);
    let error = build(&fake, &[("frontend.caps", "new+forward")]).await.expect_err("nobody to forward to");
    assert_eq!(error.to_string(), "unsupported frontend capability new");
}

#[tokio::test]
async fn times_of_downloads() {
    let url = "https://host.example/Dockerfile";
    let mut fake = Fake::new().file(url, "context", "FROM scratch\n");
    fake.http_modified = Some(1_700_000_000);
    let opts = [("context", url), ("build-arg:SOURCE_DATE_EPOCH", "context")];
    let solution = build(&fake, &opts).await.expect("built");
    assert_eq!(&solution.metadata["source.date.epoch"][..], b"1700000000");
}

#[tokio::test]
async fn bills_of_materials() {
    let scanner =
        r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["/scan"]},"rootfs":{"type":"layers"}}"#;
    let fake =
        Fake::new().dockerfile("FROM base\n").image(BASE, CONFIG).image("r.example/scan:latest", scanner);
    let solution = build(&fake, &[("attest:sbom", "generator=r.example/scan,k=v")]).await.expect("built");
    let attestation = &solution.attestations["linux/amd64"][0];
    assert_eq!(attestation.predicate_type, "https://spdx.dev/Document");
    assert_eq!(&attestation.metadata["sbom-core"][..], b"sbom");
    assert!(fake.solved().contains(&"[linux/amd64] generating sbom using r.example/scan:latest".to_owned()));
    let broken =
        Fake::new().dockerfile("FROM base\n").image(BASE, CONFIG).image("r.example/scan:latest", CONFIG);
    let error =
        build(&broken, &[("attest:sbom", "generator=r.example/scan")]).await.expect_err("nothing to run");
    assert_eq!(error.to_string(), "scanner r.example/scan:latest does not have cmd");
}
