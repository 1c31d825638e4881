//! What a daemon attaches to a failed build: which vertex, which op, which lines of which file.
//!
//! Source of the form: BuildKit's `util/grpcerrors`: details of a `google.rpc.Status` whose type is
//! `github.com/moby/buildkit/<package>.<Name>+json` and whose value is JSON, not protobuf. Advice is a `google.rpc.Help` as it is.

use kiln_proto::prost::Message;
use kiln_proto::rpc::{Help, Status as RpcStatus};
use serde::Deserialize;

/// The details of one failed call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Digest of the vertex that failed.
    pub vertex: Option<String>,
    /// Places in the user's files, the innermost last.
    pub sources: Vec<Source>,
    /// What the user can do about it, in the daemon's words.
    pub advice: Vec<String>,
    /// Name of a subrequest that the frontend does not have.
    pub unsupported_subrequest: Option<String>,
}

/// Lines of a file that an error is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    pub filename: String,
    pub language: String,
    /// The whole file.
    pub data: Vec<u8>,
    pub ranges: Vec<LineRange>,
}

/// Lines from 1, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRange {
    pub start: u32,
    pub end: u32,
}

#[derive(Deserialize)]
struct VertexJson {
    #[serde(default)]
    digest: String,
}

#[derive(Deserialize)]
struct SubrequestJson {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct SourceJson {
    #[serde(default)]
    info: Option<InfoJson>,
    #[serde(default)]
    ranges: Vec<RangeJson>,
}

#[derive(Deserialize)]
struct InfoJson {
    #[serde(default)]
    filename: String,
    #[serde(default)]
    language: String,
    /// Base64, as JSON has bytes.
    #[serde(default)]
    data: String,
}

#[derive(Deserialize)]
struct RangeJson {
    #[serde(default)]
    start: PositionJson,
    #[serde(default)]
    end: PositionJson,
}

#[derive(Deserialize, Default)]
struct PositionJson {
    #[serde(default)]
    line: i64,
}

impl Details {
    /// Reads what a daemon attached. What cannot be read is left out: an error that cannot be explained is still shown.
    pub fn of(status: &tonic::Status) -> Details {
        let mut found = Details::default();
        let Ok(rpc) = RpcStatus::decode(status.details()) else { return found };
        for detail in &rpc.details {
            let name = detail.type_url.rsplit('.').next().unwrap_or_default();
            match name {
                "Vertex+json" => {
                    if let Ok(vertex) = serde_json::from_slice::<VertexJson>(&detail.value) {
                        found.vertex = Some(vertex.digest);
                    }
                }
                "Source+json" => found.sources.extend(source(&detail.value)),
                "Subrequest+json" => {
                    if let Ok(subrequest) = serde_json::from_slice::<SubrequestJson>(&detail.value) {
                        found.unsupported_subrequest = Some(subrequest.name);
                    }
                }
                "Help" => {
                    let help = Help::decode(detail.value.as_slice()).unwrap_or_default();
                    found.advice.extend(help.links.into_iter().map(|link| link.description));
                }
                _ => {}
            }
        }
        found
    }
}

fn source(json: &[u8]) -> Option<Source> {
    let source: SourceJson = serde_json::from_slice(json).ok()?;
    let info = source.info?;
    let line = |position: &PositionJson| u32::try_from(position.line).unwrap_or(0);
    Some(Source {
        filename: info.filename,
        language: info.language,
        data: base64_decode(&info.data)?,
        ranges: source
            .ranges
            .iter()
            .map(|range| LineRange {
                start: line(&range.start),
                end: line(&range.end).max(line(&range.start)),
            })
            .filter(|range| range.start > 0)
            .collect(),
    })
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use kiln_proto::prost_types::Any;

    use super::*;

    fn status(type_name: &str, json: &str) -> tonic::Status {
        let rpc = RpcStatus {
            code: 2,
            message: "failed".into(),
            details: vec![Any {
                type_url: format!("github.com/moby/buildkit/errdefs.{type_name}+json"),
                value: json.as_bytes().to_vec(),
            }],
        };
        tonic::Status::with_details(tonic::Code::Unknown, "failed", rpc.encode_to_vec().into())
    }

    #[test]
    fn lines_of_the_file_are_read() {
        let json = r#"{"info":{"filename":"Dockerfile","data":"RlJPTSB4Cg=="},"ranges":[{"start":{"line":1},"end":{"line":1}}]}"#;
        let found = Details::of(&status("Source", json));
        assert_eq!(found.sources[0].data, b"FROM x\n");
        assert_eq!(found.sources[0].ranges, [LineRange { start: 1, end: 1 }]);
    }

    #[test]
    fn advice_is_read() {
        use kiln_proto::rpc::help::Link;
        let help = Help { links: vec![Link { description: "log in".into(), url: String::new() }] };
        let any = Any { type_url: "type.googleapis.com/google.rpc.Help".into(), value: help.encode_to_vec() };
        let rpc = RpcStatus { code: 2, message: "failed".into(), details: vec![any] };
        let status = tonic::Status::with_details(tonic::Code::Unknown, "failed", rpc.encode_to_vec().into());
        assert_eq!(Details::of(&status).advice, ["log in"]);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert_eq!(Details::of(&status("Source", "{")), Details::default());
        assert_eq!(Details::of(&tonic::Status::internal("x")), Details::default());
    }
}
