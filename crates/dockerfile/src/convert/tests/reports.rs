use super::support::{Memory, found, options};
use crate::convert::{lint, outline};

#[tokio::test]
async fn checks() {
    let none: [&str; 0] = [];
    for (text, want) in [
        (
            "FROM scratch\nCOPY Dockerfile \\\n\n.\n",
            &["NoEmptyContinuation: Empty continuation line (line 4)"][..],
        ),
        (
            "From scratch as a\nFROM scratch AS b\n",
            &[
                "ConsistentInstructionCasing: Command 'From' should match the case of the command majority (uppercase) (line 1)",
            ],
        ),
        (
            "FROM scratch AS b\nFROM scratch AS b\n",
            &["DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)"],
        ),
        (
            "FROM scratch AS context\n",
            &[
                "ReservedStageName: Stage name should not use the same name as reserved stage \"context\" (line 1)",
            ],
        ),
        (
            "FROM scratch\nCMD x\n",
            &[
                "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
            ],
        ),
        ("FROM scratch AS b\nSHELL [\"x\"]\nFROM b\nCMD x\n", &none),
        (
            "FROM b:${v}\n",
            &[
                "InvalidDefaultArgInFrom: Default value for ARG b:${v} results in empty or invalid base image name (line 1)",
                "UndefinedArgInFrom: FROM argument 'v' is not declared (line 1)",
            ],
        ),
        (
            "FROM scratch\nWORKDIR a/\nWORKDIR b\n",
            &[
                "WorkdirRelativePath: Relative workdir \"a/\" can have unexpected results if the base image changes (line 2)",
            ],
        ),
        (
            "FROM alpine\nENV A=$PTH$PATH\n",
            &["UndefinedVar: Usage of undefined variable '$PTH' (did you mean $PATH?) (line 2)"],
        ),
        ("FROM scratch\nARG a\nCOPY $a .\n", &none),
        (
            "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n",
            &[
                "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
            ],
        ),
        (
            "FROM scratch\nENV a b\n",
            &[
                "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            ],
        ),
        (
            "FROM --platform=$TARGETPLATFORM scratch\n",
            &[
                "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
            ],
        ),
        (
            "FROM --platform=linux/amd64 scratch\n",
            &[
                "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
            ],
        ),
        ("FROM --platform=linux/amd64 scratch AS my_amd64\n", &none),
        (
            "FROM scratch\nEXPOSE 80/TcP 1.2.3.4:5:6\n",
            &[
                "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '1.2.3.4:5:6' (line 2)",
                "ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase (line 2)",
            ],
        ),
        (
            "# check=skip=all;experimental=InvalidDefinitionDescription\n# x\nFROM scratch AS b\n",
            &[
                "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 3)",
            ],
        ),
    ] {
        assert_eq!(found(text, &[], &Memory::default()).await, want, "{text}");
    }
}

#[tokio::test]
async fn ignored_sources() {
    let ignored = |ignore: &str| Memory { ignore: ignore.to_owned(), ..Memory::default() };
    let text = "FROM scratch\nCOPY ./f .\nADD f /g\nCOPY . .\n";
    assert_eq!(
        found(text, &[], &ignored("f\n")).await,
        [
            "CopyIgnoredFile: Attempting to Copy file \"f\" that is excluded by .dockerignore (line 2)",
            "CopyIgnoredFile: Attempting to Add file \"f\" that is excluded by .dockerignore (line 3)",
        ]
    );
    assert_eq!(found(text, &[], &ignored("*\n")).await.len(), 3);
    assert_eq!(found(text, &[], &ignored("*\n!f\n")).await.len(), 0);
}

#[tokio::test]
async fn platforms_of_bases() {
    let config = r#"{"architecture":"arm64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"x"}]}"#;
    let memory = Memory::with_image("docker.io/library/alpine:latest", config);
    assert_eq!(
        found("FROM alpine\n", &[("platform", "linux/amd64")], &memory).await,
        [
            "InvalidBaseImagePlatform: Base image alpine was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build (line 1)"
        ]
    );
}

#[tokio::test]
async fn a_report_covers_all_stages_and_the_failure() {
    let text = b"FROM scratch AS a\nCOPY $x .\nFROM scratch\nCOPY $y .\nUSER ${z?}\n";
    let report = lint(text, &options(&[]), &Memory::default()).await;
    let lines: Vec<u32> = report.findings.iter().map(|finding| finding.location[0].start.line).collect();
    assert_eq!(lines, [2, 4, 5]);
    let error = report.error.as_ref().unwrap();
    assert_eq!(
        (error.message.as_str(), error.location.len()),
        ("failed to process \"${z?}\": z: is not allowed to be unset", 1)
    );
    assert_eq!(report.status_code(), 1);
    let json: serde_json::Value = serde_json::from_slice(&report.to_json()).unwrap();
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 5);
}

#[tokio::test]
async fn an_outline() {
    let text = "ARG inherited=box\nARG unused=1\n# sfx is a suffix\nARG sfx=\"usy${inherited}\"\nFROM b${sfx} AS first\n\
                # BAR is a number\nARG BAR=456\nRUN --mount=type=secret,target=/etc/passwd,required=true --mount=type=ssh x\n\
                FROM scratch AS third\nARG ABC=a\n# target is it\nFROM third AS target\nCOPY --from=first /x /\n\
                FROM alpine\nARG OTHER\n";
    let attrs = [("target", "target"), ("build-arg:BAR", "678")];
    let outline = outline(text.as_bytes(), &options(&attrs), &Memory::default(), None).await.unwrap();
    insta::assert_snapshot!(outline.to_text());
    let json: serde_json::Value = serde_json::from_slice(&outline.to_json()).unwrap();
    assert_eq!(json["args"][2]["value"], "678");
    assert_eq!(json["secrets"][0]["location"]["ranges"][0]["start"]["line"], 8);
    assert_eq!(json["sources"].as_array().unwrap().len(), 1);
}
