use super::*;
use crate::location::lines;

#[test]
fn options() {
    let parse = |text: &str| LintConfig::parse(text).map_err(|error| error.to_string());
    assert_eq!(parse(" "), Ok(LintConfig::default()));
    assert!(parse("skip=all;error=true").unwrap().fail);
    assert_eq!(parse("skip"), Err("invalid check option \"skip\"".to_owned()));
    assert_eq!(parse("foo=1"), Err("invalid check option \"foo\"".to_owned()));
    assert_eq!(
        parse("error=maybe"),
        Err("failed to parse check option \"error=maybe\": strconv.ParseBool: parsing \"maybe\": invalid syntax".to_owned())
    );
}

#[test]
fn rules_can_be_switched() {
    let applies = |options: &str, rule| LintConfig::parse(options).unwrap().applies(rule);
    assert!(applies("", Rule::FromAsCasing));
    assert!(!applies("", Rule::InvalidDefinitionDescription));
    assert!(applies("skip=all;experimental=all", Rule::InvalidDefinitionDescription));
    assert!(!applies("skip= A , FromAsCasing", Rule::FromAsCasing));
}

#[test]
fn comments_add_options_for_one_instruction() {
    let findings = Findings::default();
    let lint = Linter::new(LintConfig::parse("error=true").unwrap(), findings.clone());
    let here = lint.with_comments(&["why".into(), "check=skip=UndefinedVar // really".into()]);
    here.report(Rule::UndefinedVar, &lines(1, 1), String::new());
    assert!(lint.violations().is_none());
    here.report(Rule::FromAsCasing, &lines(1, 1), String::new());
    assert_eq!(lint.violations().unwrap(), ["FromAsCasing"]);
    assert_eq!(findings.take().len(), 1);
}

#[test]
fn names_that_sound_like_secrets() {
    let findings = Findings::default();
    let lint = Linter::new(LintConfig::default(), findings.clone());
    for key in ["SECRET_PASSPHRASE", "SUPER_Secret", "git_key", "apikey", "AUTH"] {
        check_secret_key("ENV", key, &lines(1, 1), &lint);
        assert_eq!(findings.take().len(), 1, "{key}");
    }
    for key in ["PUBLIC_KEY", "password_file", "AUTH_MODULE_VERSION", "sunflower", "monkey"] {
        check_secret_key("ENV", key, &lines(1, 1), &lint);
        assert_eq!(findings.take().len(), 0, "{key}");
    }
}

#[test]
fn a_report_in_all_forms() {
    let source = kiln_proto::pb::SourceInfo {
        filename: "Dockerfile".into(),
        data: b"FROM a AS B\nRUN x\n".to_vec().into(),
        definition: None,
        language: "Dockerfile".into(),
    };
    let finding = Finding { rule: Rule::StageNameCasing, detail: "d".into(), location: lines(1, 1) };
    let report = LintReport { source, findings: vec![finding], error: None };
    assert_eq!(report.status_code(), 1);
    assert!(report.to_text().starts_with(
        "\nWARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\nd\nDockerfile:1\n"
    ));
    let json: serde_json::Value = serde_json::from_slice(&report.to_json()).unwrap();
    assert_eq!(json["warnings"][0]["ruleName"], "StageNameCasing");
    assert_eq!(json["warnings"][0]["location"]["ranges"][0]["start"]["line"], 1);
    assert_eq!(json["sources"][0]["language"], "Dockerfile");
    let clean = LintReport { findings: Vec::new(), ..report };
    assert_eq!(clean.status_code(), 0);
    let json: serde_json::Value = serde_json::from_slice(&clean.to_json()).unwrap();
    assert!(json["warnings"].is_null());
}
