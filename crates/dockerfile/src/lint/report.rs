//! The answer to the `frontend.lint` subrequest: as JSON, as text, and as an exit status.

use super::{Finding, Rule};
use crate::json::{JsonLocation, JsonSourceInfo};
use crate::location::Range;
use crate::source::print_excerpt;
use kiln_proto::pb;
use serde::Serialize;
use std::fmt::Write;

/// Version of the subrequest's format.
pub const LINT_VERSION: &str = "1.0.0";

/// What checking a Dockerfile gave.
#[derive(Debug, Clone)]
pub struct LintReport {
    pub source: pb::SourceInfo,
    pub findings: Vec<Finding>,
    /// The failure that ended the check early.
    pub error: Option<LintError>,
}

/// A failure, as part of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintError {
    pub message: String,
    /// Empty if it concerns no particular lines.
    pub location: Vec<Range>,
}

#[derive(Serialize)]
struct JsonReport<'a> {
    warnings: Option<Vec<JsonWarning<'a>>>,
    sources: [JsonSourceInfo<'a>; 1],
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    error: Option<JsonError<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonWarning<'a> {
    rule_name: &'a str,
    description: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    location: JsonLocation,
}

#[derive(Serialize)]
struct JsonError<'a> {
    message: &'a str,
    location: JsonLocation,
}

impl LintReport {
    /// `result.json`.
    pub fn to_json(&self) -> Vec<u8> {
        let warnings = self.findings.iter().map(|finding| JsonWarning {
            rule_name: finding.rule.name(),
            description: finding.rule.description(),
            url: finding.rule.url(),
            detail: &finding.detail,
            location: JsonLocation::new(&finding.location),
        });
        let error = self
            .error
            .as_ref()
            .map(|error| JsonError { message: &error.message, location: JsonLocation::new(&error.location) });
        let report = JsonReport {
            warnings: (!self.findings.is_empty()).then(|| warnings.collect()),
            sources: [JsonSourceInfo::new(&self.source)],
            error,
        };
        crate::json::to_vec(&report)
    }

    /// `result.txt`: every finding with the lines around it.
    pub fn to_text(&self) -> String {
        let mut findings: Vec<&Finding> = self.findings.iter().collect();
        findings.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        let mut text = String::new();
        for Finding { rule, detail, location } in findings {
            let url = match rule.url() {
                url if url.is_empty() => url,
                url => format!(" - {url}"),
            };
            writeln!(text, "\nWARNING: {}{url}\n{detail}", rule.name())
                .expect("writing to a String cannot fail");
            text.push_str(&print_excerpt(&self.source.filename, &self.source.data, location));
        }
        text
    }

    /// `result.statuscode`.
    pub fn status_code(&self) -> u32 {
        u32::from(!self.findings.is_empty() || self.error.is_some())
    }
}

/// Findings without a place come first, by name; the others by line.
fn sort_key(finding: &Finding) -> (Option<u32>, &'static str) {
    match finding.location.first() {
        Some(range) => (Some(range.start.line), ""),
        None => (None, Rule::name(finding.rule)),
    }
}
