//! Questions to the frontend instead of a build: `--call check`, `outline`, `targets`, …
//!
//! A build with no frontend of its own is started, and its gateway asked; the answer is the metadata of the result.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kiln_client::{Client, Error as ClientError};
use kiln_progress::{Position, Range, SourceInfo, source};
use kiln_proto::MESSAGE_BYTES_MAX;
use kiln_proto::frontend::llb_bridge_client::LlbBridgeClient;
use kiln_proto::frontend::{PingRequest, Ref, Result as GatewayResult, ReturnRequest, SolveRequest, result};
use kiln_proto::prost::Message as _;
use kiln_proto::rpc;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::flags::Call;

/// What the frontend must be able to do.
const CAPABILITY: &str = "moby.buildkit.frontend.subrequests+forward";

/// The frontend's answer: `result.json`, `result.txt`, `result.statuscode`, `version`.
pub type Answer = BTreeMap<String, Bytes>;

/// Asks the frontend of a build that has been requested.
pub async fn ask(
    client: &Client,
    build: &str,
    frontend: String,
    mut attrs: BTreeMap<String, String>,
    question: &Call,
) -> std::result::Result<Answer, ClientError> {
    let mut bridge = LlbBridgeClient::new(client.channel())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // The daemon answers when it knows the build, which is requested at the same time.
    bridge.ping(Client::for_build(PingRequest {}, build)?).await?;
    let caps = attrs.entry("frontend.caps".to_owned()).or_default();
    if !caps.is_empty() {
        caps.push(',');
    }
    caps.push_str(CAPABILITY);
    attrs.insert("requestid".to_owned(), format!("frontend.{}", question.name));
    let request = SolveRequest {
        frontend,
        frontend_opt: attrs,
        allow_result_return: true,
        allow_result_array_ref: true,
        ..SolveRequest::default()
    };
    let (answer, end) = match bridge.solve(Client::for_build(request, build)?).await {
        Ok(response) => {
            let metadata = response.into_inner().result.unwrap_or_default().metadata;
            let result = GatewayResult {
                result: Some(result::Result::Ref(Ref::default())),
                metadata: metadata.clone(),
                ..GatewayResult::default()
            };
            (Ok(metadata.into_iter().collect()), ReturnRequest { result: Some(result), error: None })
        }
        Err(status) => {
            let error = rpc::Status::decode(status.details()).ok().filter(|error| error.code != 0);
            let error = error.unwrap_or_else(|| rpc::Status {
                code: status.code() as i32,
                message: status.message().to_owned(),
                ..rpc::Status::default()
            });
            (Err(status.into()), ReturnRequest { result: None, error: Some(error) })
        }
    };
    // Ends the build; when that fails, the build fails too and says why.
    let ended = bridge.r#return(Client::for_build(end, build)?).await;
    match (answer, ended) {
        (Ok(_), Err(status)) => Err(status.into()),
        (answer, _) => answer,
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LintResults {
    warnings: Option<Vec<LintWarning>>,
    sources: Option<Vec<LintSource>>,
    #[serde(rename = "buildError")]
    build_error: Option<BuildError>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LintWarning {
    #[serde(rename = "ruleName")]
    rule_name: String,
    url: String,
    detail: String,
    location: Location,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BuildError {
    message: String,
    location: Location,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Location {
    #[serde(rename = "sourceIndex")]
    source_index: i64,
    ranges: Option<Vec<JsonRange>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct JsonRange {
    start: JsonPosition,
    end: JsonPosition,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct JsonPosition {
    line: i32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LintSource {
    filename: String,
    data: String,
}

/// The answer as a person or program reads it, and the exit code. `dockerfile` is what the user calls the file.
pub fn render(question: &Call, answer: &Answer, dockerfile: &str) -> Result<(String, u8)> {
    let text = |key: &str| answer.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
    let json = text("result.json");
    let shown = if question.format == "json" {
        json.map(|json| json + "\n")
    } else if question.name == "lint" {
        Some(render_lint(json.as_deref().unwrap_or("{}"), dockerfile)?)
    } else {
        text("result.txt")
    };
    let shown = shown
        .ok_or_else(|| Error::environment(format!("the frontend gave no answer to {:?}", question.name)))?;
    let status = text("result.statuscode").and_then(|status| status.trim().parse::<u8>().ok()).unwrap_or(0);
    Ok((shown, if question.ignore_status { 0 } else { status }))
}

fn render_lint(json: &str, dockerfile: &str) -> Result<String> {
    let results: LintResults = serde_json::from_str(json)
        .map_err(|error| Error::environment("the frontend's answer cannot be understood").because(error))?;
    let sources = results.sources.unwrap_or_default();
    let mut warnings = results.warnings.unwrap_or_default();
    warnings.sort_by_key(|warning| {
        (warning.location.source_index, warning.location.first_line(), warning.rule_name.clone())
    });
    let mut out = String::new();
    match warnings.len() {
        0 => {}
        1 => out.push_str("Check complete, 1 warning has been found!\n"),
        count => writeln!(out, "Check complete, {count} warnings have been found!")
            .expect("a String takes every write"),
    }
    for warning in &warnings {
        let url = if warning.url.is_empty() { String::new() } else { format!(" - {}", warning.url) };
        writeln!(out, "\nWARNING: {}{url}\n{}", warning.rule_name, warning.detail)
            .expect("a String takes every write");
        out.push_str(&warning.location.excerpt(&sources, dockerfile));
    }
    if let Some(error) = results.build_error {
        let message = format!("{}\n{}", error.message, error.location.excerpt(&sources, dockerfile));
        return Err(Error::build(message.trim_end()).after(out));
    }
    if warnings.is_empty() {
        out.push_str("Check complete, no warnings found.\n");
    }
    Ok(out)
}

impl Location {
    fn first_line(&self) -> Option<i32> {
        self.ranges.as_ref()?.first().map(|range| range.start.line)
    }

    fn excerpt(&self, sources: &[LintSource], dockerfile: &str) -> String {
        let Some(found) = usize::try_from(self.source_index).ok().and_then(|at| sources.get(at)) else {
            return String::new();
        };
        let filename = if dockerfile.is_empty() { found.filename.clone() } else { dockerfile.to_owned() };
        let data = STANDARD.decode(&found.data).unwrap_or_default().into();
        let info = SourceInfo { filename, data, language: String::new() };
        let position = |position: JsonPosition| Position { line: position.line, character: 0 };
        let ranges: Vec<Range> = self
            .ranges
            .iter()
            .flatten()
            .map(|range| Range { start: position(range.start), end: position(range.end) })
            .collect();
        source::excerpt(&info, &ranges).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pairs: &[(&str, &str)]) -> Answer {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), Bytes::from((*value).to_owned()))).collect()
    }

    fn question(text: &str) -> Call {
        crate::flags::call(text).unwrap().unwrap()
    }

    const LINT: &str = r#"{"warnings":[
        {"ruleName":"B","detail":"second","location":{"ranges":[{"start":{"line":2},"end":{"line":2}}]}},
        {"ruleName":"A","url":"https://x.test/a","detail":"first","location":{"ranges":[{"start":{"line":1},"end":{"line":1}}]}}],
        "sources":[{"filename":"Dockerfile","language":"Dockerfile","data":"RlJPTSBhCkZST00gYgo="}]}"#;

    #[test]
    fn checks_are_told_with_their_lines() {
        let found = answer(&[("result.json", LINT), ("result.statuscode", "1")]);
        let (text, status) = render(&question("check"), &found, "sub/Dockerfile").unwrap();
        insta::assert_snapshot!(text);
        assert_eq!(status, 1);
        assert_eq!(render(&question("check,ignorestatus=1"), &found, "").unwrap().1, 0);
        assert_eq!(render(&question("check,format=json"), &found, "").unwrap().0, format!("{LINT}\n"));
    }

    #[test]
    fn nothing_found_is_said() {
        let found = answer(&[("result.json", r#"{"warnings":null,"sources":null}"#)]);
        assert_eq!(
            render(&question("check"), &found, "").unwrap(),
            ("Check complete, no warnings found.\n".into(), 0)
        );
    }

    #[test]
    fn an_error_of_the_file_is_an_error() {
        let json =
            LINT.replacen('{', r#"{"buildError":{"message":"bad line","location":{"sourceIndex":7}},"#, 1);
        let error = render(&question("check"), &answer(&[("result.json", &json)]), "").unwrap_err();
        assert!(error.to_string().starts_with("bad line"));
        assert!(error.report().contains("WARNING: A"));
    }

    #[test]
    fn other_answers_are_shown_as_they_are() {
        let found = answer(&[("result.txt", "TARGET\n"), ("result.json", "{}")]);
        assert_eq!(render(&question("targets"), &found, "").unwrap().0, "TARGET\n");
        assert!(render(&question("outline"), &answer(&[]), "").is_err());
    }
}
