//! The end of a build: its metadata, or its error.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_client::Error as ClientError;
use kiln_client::details::{Details, Source};
use kiln_progress::{Position, Range, SourceInfo, VertexWarning, source};
use serde_json::{Map, Value};
use tonic::{Code, Status};

use super::solve::Failure;
use crate::error::{Error, Result, exit};
use crate::files;

const IMAGE_DIGEST: &str = "containerimage.digest";
const CONFIG_DIGEST: &str = "containerimage.config.digest";
/// Already JSON where all other values are base64 of JSON or plain text.
const RESULT_JSON: &str = "result.json";

/// What the exporters answered.
pub type Response = BTreeMap<String, String>;

/// The digest that identifies the image where it went: the configuration's where that is told.
pub fn image_id(response: &Response) -> &str {
    response.get(CONFIG_DIGEST).or_else(|| response.get(IMAGE_DIGEST)).map_or("", String::as_str)
}

/// Engines that keep images as containerd does know them by their manifest.
pub fn prefer_image_digest(response: &mut Response) {
    response.remove(CONFIG_DIGEST);
}

/// Writes `--metadata-file`.
pub fn write_metadata(path: &Path, response: &Response, warnings: Option<&[VertexWarning]>) -> Result<()> {
    let mut all: Map<String, Value> =
        response.iter().map(|(key, value)| (key.clone(), decoded(key, value))).collect();
    if let Some(warnings) = warnings.filter(|warnings| !warnings.is_empty()) {
        let list = serde_json::to_value(warnings).expect("a warning has only string keys");
        all.insert("buildx.build.warnings".to_owned(), list);
    }
    let text = serde_json::to_vec_pretty(&all).expect("a JSON value has only string keys");
    files::write_atomic(path, &text)
}

/// A value that holds a JSON object, or a list of them, becomes that.
fn decoded(key: &str, text: &str) -> Value {
    let bytes = if key == RESULT_JSON { Some(text.as_bytes().to_vec()) } else { STANDARD.decode(text).ok() };
    let value = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let is_useful = value.as_ref().is_some_and(|value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty() && list.iter().all(Value::is_object),
        _ => false,
    });
    value.filter(|_| is_useful).unwrap_or_else(|| Value::String(text.to_owned()))
}

/// What the user is told of a failed build.
pub fn error_of(failure: Failure) -> Error {
    match failure {
        Failure::Canceled => Error::canceled().in_context("failed to solve: Canceled"),
        Failure::Session(error) => Error::environment("the session with the builder broke").because(error),
        Failure::Daemon(error) => match &error {
            ClientError::Status(status) => of_status(status),
            _ => Error::environment(error.to_string()),
        },
    }
}

fn of_status(status: &Status) -> Error {
    let message = match status.code() {
        Code::Unimplemented if status.message().contains("moby.buildkit.frontend.contexts") => {
            "current frontend does not support --build-context. Named contexts are supported since Dockerfile v1.4. Use \
             #syntax directive in Dockerfile or update to latest BuildKit."
        }
        Code::Unimplemented if status.message().contains("moby.buildkit.frontend.gitquerystring") => {
            "current frontend does not support Git URLs with query string components. Git URLs with query string are \
             supported since Dockerfile v1.18 and BuildKit v0.24. Use BUILDKIT_SYNTAX build-arg, #syntax directive in \
             Dockerfile or update to latest BuildKit."
        }
        _ => status.message(),
    };
    let mut error = match status.code() {
        Code::Unavailable => Error::environment(format!("failed to solve: {message}"))
            .hint("the connection to the builder was lost: see its log"),
        _ => Error::build(format!("failed to solve: {message}")),
    };
    error = error.exit_code(match status.code() {
        Code::Internal => exit::INTERNAL,
        Code::ResourceExhausted => exit::EXHAUSTED,
        Code::Cancelled => exit::CANCELED,
        _ => exit::FAILURE,
    });
    let details = Details::of(status);
    for advice in details.advice {
        error = error.hint(advice);
    }
    for place in details.sources {
        if let Some(text) = excerpt(place) {
            error = error.after(text);
        }
    }
    error
}

fn excerpt(place: Source) -> Option<String> {
    let info = SourceInfo { filename: place.filename, data: place.data.into(), language: place.language };
    let position = |line: u32| Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 };
    let ranges: Vec<Range> = place
        .ranges
        .iter()
        .map(|range| Range { start: position(range.start), end: position(range.end) })
        .collect();
    source::excerpt(&info, &ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(pairs: &[(&str, &str)]) -> Response {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn metadata_is_decoded_where_it_is_json() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.json");
        let descriptor = STANDARD.encode(r#"{"size":5}"#);
        let list = STANDARD.encode(r#"[{"a":1}]"#);
        let number = STANDARD.encode("5");
        let pairs = [
            ("containerimage.descriptor", descriptor.as_str()),
            ("image.name", "docker.io/library/x"),
            ("list", &list),
            ("number", &number),
            ("result.json", r#"{"b":2}"#),
        ];
        write_metadata(&path, &response(&pairs), None).unwrap();
        insta::assert_snapshot!(std::fs::read_to_string(path).unwrap());
    }

    #[test]
    fn the_configuration_identifies_an_image() {
        let mut both = response(&[(CONFIG_DIGEST, "c"), (IMAGE_DIGEST, "i")]);
        assert_eq!(image_id(&both), "c");
        prefer_image_digest(&mut both);
        assert_eq!(image_id(&both), "i");
        assert_eq!(image_id(&Response::new()), "");
    }

    #[test]
    fn codes_become_exit_codes() {
        let of = |code| error_of(Failure::Daemon(Status::new(code, "why").into()));
        assert_eq!(of(Code::Unknown).report(), "ERROR: failed to solve: why\n");
        let codes = [Code::Unknown, Code::Internal, Code::ResourceExhausted, Code::Cancelled];
        assert_eq!(codes.map(|code| of(code).exit()), [1, 100, 102, 130]);
        assert_eq!(error_of(Failure::Canceled).exit(), 130);
    }
}
