use super::support::{Memory, good, message};
use kiln_oci::gojson;

#[tokio::test]
async fn the_config_of_an_image() {
    let text = "FROM alpine\nARG V=1\nENV A=$V B=\"x y\"\nLABEL l=$A\nUSER u\nWORKDIR d\nEXPOSE 80 90-91/udp\nVOLUME /v\n\
                STOPSIGNAL SIGTERM\nSHELL [\"/bin/x\", \"-c\"]\nHEALTHCHECK --interval=90s CMD ok\nONBUILD RUN later\n\
                MAINTAINER me\nRUN make\nCOPY --chown=1 a b\nENTRYPOINT run\nCMD [\"a\", \"b c\"]\n";
    let attrs = [("label:given", "1"), ("build-arg:V", "2"), ("build-arg:SOURCE_DATE_EPOCH", "1700000000")];
    let converted = good(text, &attrs, &Memory::default()).await;
    assert_eq!(converted.epoch.unwrap().unix_seconds(), 1_700_000_000);
    let json = gojson::to_vec_indented(&converted.image).unwrap();
    insta::assert_snapshot!(String::from_utf8(json).unwrap());
    assert_eq!(converted.base_image.unwrap().config.cmd, ["sh"]);
}

#[tokio::test]
async fn the_image_of_nothing() {
    let converted = good("FROM scratch", &[("platform", "linux/arm/v7")], &Memory::default()).await;
    let image = converted.image;
    assert_eq!((image.architecture.as_str(), image.variant.as_str()), ("arm", "v7"));
    assert_eq!(image.config.working_dir, "/");
    assert!(image.config.env[0].starts_with("PATH=/usr/local/sbin"));
    assert!(converted.state.is_scratch() && converted.base_image.is_none());
}

#[tokio::test]
async fn an_entrypoint_drops_the_inherited_command() {
    let image = good("FROM alpine\nENTRYPOINT [\"x\"]", &[], &Memory::default()).await.image;
    assert!(image.config.cmd.is_empty());
    let image = good("FROM alpine\nCMD [\"y\"]\nENTRYPOINT [\"x\"]", &[], &Memory::default()).await.image;
    assert_eq!(image.config.cmd, ["y"]);
}

#[tokio::test]
async fn triggers_of_a_base_run_first() {
    let config = r#"{"architecture":"amd64","os":"linux","config":{"OnBuild":["COPY --from=busybox /x /y","ENV A=1"]},
        "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x"}]}"#;
    let memory = Memory::with_image("docker.io/library/alpine:latest", config);
    let converted = good("FROM alpine\nENV B=$A\n", &[], &memory).await;
    assert_eq!(converted.image.config.env[1..], ["A=1", "B=1"]);
    assert!(converted.image.config.on_build.is_empty());
    let asked = memory.asked.lock().unwrap();
    assert!(
        asked.iter().any(|name| name.ends_with("load metadata for docker.io/library/busybox:latest")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn triggers_of_a_stage_run_in_the_next_one_only() {
    let text = "FROM scratch AS a\nONBUILD ENV X=1\nFROM a AS b\nENV Y=$X\nFROM b\nENV Z=2\n";
    let converted = good(text, &[], &Memory::default()).await;
    assert_eq!(converted.image.config.env[1..], ["X=1", "Y=1", "Z=2"]);
}

#[tokio::test]
async fn bills_of_materials() {
    let text = "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM alpine AS a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x\n\
                FROM alpine\nCOPY --from=a /x /\n";
    let converted = good(text, &[("no-cache", "a")], &Memory::default()).await;
    let names: Vec<&str> = converted.sbom.extras.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["context", "a"]);
    assert!(converted.ignore_cache);
}

#[tokio::test]
async fn times_of_sources() {
    let memory = Memory { time: Some(5), ..Memory::default() };
    let text =
        "FROM scratch AS src\nARG V=1\nADD https://h/$V.tar /\nFROM alpine\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    let converted = good(text, &[("build-arg:SOURCE_DATE_EPOCH", "src")], &memory).await;
    assert_eq!(converted.epoch.unwrap().unix_seconds(), 5);
    assert!(converted.image.history.last().unwrap().created_by.contains("SOURCE_DATE_EPOCH=5"));
    assert_eq!(
        memory.asked.lock().unwrap()[0],
        "[internal] resolve SOURCE_DATE_EPOCH source stage src: https://h/1.tar"
    );
    for (text, value, want) in [
        ("FROM alpine AS s\nFROM scratch", "s", "SOURCE_DATE_EPOCH stage must use FROM scratch"),
        (
            "FROM scratch AS s\nFROM scratch",
            "s",
            "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD",
        ),
        (
            "FROM scratch AS s\nRUN x\nFROM scratch",
            "s",
            "SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported RUN instruction",
        ),
        (
            "FROM scratch AS s\nADD a b\nFROM scratch",
            "s",
            "SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD",
        ),
        ("FROM scratch", "nope", "invalid SOURCE_DATE_EPOCH: nope"),
    ] {
        assert_eq!(message(text, &[("build-arg:SOURCE_DATE_EPOCH", value)], &memory).await, want);
    }
}
