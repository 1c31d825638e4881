use super::support::{Memory, message, run};
use std::collections::BTreeMap;

#[tokio::test]
async fn failures_have_known_texts() {
    for (text, want) in [
        ("", "the Dockerfile cannot be empty"),
        ("ARG A\n", "dockerfile contains no stages to build"),
        ("FROM $A\n", "base name ($A) should not be blank"),
        (
            "FROM Bad\n",
            "failed to parse stage name \"Bad\": invalid reference format: repository name (library/Bad) must be lowercase",
        ),
        (
            "FROM --platform=$BULIDPLATFORM a\n",
            "empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)",
        ),
        (
            "ARG MY_ARCH=x\nFROM --platform=linux/${MYARCH} a\n",
            "failed to parse platform linux/${MYARCH}: \"\" is an invalid component of \"linux/\": platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument (did you mean MY_ARCH?)",
        ),
        (
            "FROM scratch\nCOPY --from=$X a b\n",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        ("FROM scratch\nCOPY --from=7 a b\n", "invalid stage index 7"),
        ("FROM scratch AS a\nCOPY --from=a a b\n", "circular dependency detected on stage: a"),
        (
            "FROM scratch AS a\nCOPY --from=b x y\nFROM scratch AS b\nCOPY --from=a x y\n",
            "circular dependency detected on stage: a",
        ),
        (
            "FROM scratch AS a\nCOPY --from=b x y\nFROM scratch AS b\nRUN x\nFROM a\n",
            "cannot copy from stage \"b\", it needs to be defined before current stage \"a\"",
        ),
        (
            "FROM scratch\nCOPY --chmod=999 a b\n",
            "invalid chmod parameter: '999'. it should be octal string and between 0 and 07777",
        ),
        ("FROM scratch\nCOPY --chmod=u+q a b\n", "invalid syntax"),
        ("FROM scratch\nCOPY https://h/x /\n", "source can't be a URL for COPY"),
        ("FROM scratch\nCOPY https://h/x.git /\n", "source can't be a git ref for COPY"),
        ("FROM scratch\nADD --checksum=sha256:x a b\n", "checksum requires HTTP(S) or Git sources"),
        ("FROM scratch\nADD --checksum=a https://h/x.git?checksum=b /\n", "checksum mismatch \"a\" != \"b\""),
        (
            "FROM scratch\nADD --keep-git-dir https://h/x.git?keep-git-dir=false /\n",
            "inconsistent keep-git-dir configuration",
        ),
        ("FROM scratch\nSTOPSIGNAL nope\n", "invalid signal: nope"),
        ("FROM scratch\nRUN --mount=type=secret,source=a,id=b x\n", "both source and id can't be set"),
        ("FROM scratch\nRUN --mount=type=ssh,source=a x\n", "ssh does not support source"),
        ("FROM scratch\nRUN --mount=target=/ x\n", "invalid mount target \"/\""),
        ("FROM scratch\nENV A=${B?}\n", "failed to process \"${B?}\": B: is not allowed to be unset"),
        ("# check=foo\nFROM scratch\n", "failed to parse check options: invalid check option \"foo\""),
        ("#check=error=true\nFROM scratch as a\n", "lint violation found for rules: FromAsCasing"),
    ] {
        assert_eq!(message(text, &[], &Memory::default()).await, want, "{text}");
    }
    let target = message("FROM scratch AS build\n", &[("target", "biuld")], &Memory::default()).await;
    assert_eq!(target, "target stage \"biuld\" could not be found (did you mean build?)");
}

#[tokio::test]
async fn failures_have_places() {
    let lines = |text: &'static str| async move {
        let error = run(text, &[], &Memory::default()).await.0.expect_err(text);
        let first = |group: &Vec<crate::location::Range>| {
            group.iter().map(|range| range.start.line).collect::<Vec<_>>()
        };
        error.locations().iter().map(first).collect::<Vec<_>>()
    };
    assert_eq!(lines("FROM scratch\nUSER \\\n${x?}\n").await, [[2, 3]]);
    assert_eq!(lines("FROM scratch\nCOPY --from=Bad a b\n").await, [[2]]);
    assert_eq!(lines("FROM scratch AS a\nCOPY --from=a x y\n").await, [[2]]);
}

#[tokio::test]
async fn a_missing_image_is_named() {
    let missing =
        |name: &str| Memory { images: BTreeMap::from([(name.to_owned(), None)]), ..Memory::default() };
    let error = run("FROM alpin\n", &[], &missing("docker.io/library/alpin:latest")).await.0.unwrap_err();
    assert_eq!(error.to_string(), "alpin: not found (did you mean alpine?)");
    assert_eq!(error.resolve_error().unwrap().to_string(), "not found");
    let text =
        message("FROM scratch AS build\nFROM biuld\n", &[], &missing("docker.io/library/biuld:latest")).await;
    assert_eq!(text, "biuld: not found (did you mean build?)");
}

#[tokio::test]
async fn what_grows_is_bounded() {
    let memory = Memory::default();
    let mut doubling = String::from("FROM scratch\nENV a0=0123456789\n");
    for at in 1..40 {
        doubling.push_str(&format!("ENV a{at}=$a{}$a{}\n", at - 1, at - 1));
    }
    assert!(message(&doubling, &[], &memory).await.contains("larger than 1048576 bytes"));
    let ports = format!("FROM scratch\nEXPOSE {}\n", "1-65535 ".repeat(20));
    assert_eq!(message(&ports, &[], &memory).await, "more than 1000000 ports are exposed");
    let names: String = (0..2000).map(|at| format!(" a{at}")).collect();
    assert!(
        message(&format!("FROM scratch\nARG{names}\n"), &[], &memory).await.ends_with("names in one ARG")
    );
    let undefined: String = (0..5000).map(|at| format!("$u{at}")).collect();
    let (result, findings) = run(&format!("FROM scratch\nUSER x{undefined}\n"), &[], &memory).await;
    assert!(result.is_ok());
    assert_eq!(findings.len(), crate::limits::FINDINGS_MAX);
}

#[tokio::test]
async fn large_inputs_end() {
    let mut text = String::from("FROM scratch AS s0\n");
    for at in 1..3000 {
        text.push_str(&format!("FROM s{} AS s{at}\nCOPY --from=s{} a b\n", at - 1, at - 1));
    }
    assert!(run(&text, &[], &Memory::default()).await.0.is_ok());
}
