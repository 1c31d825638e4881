//! Error details as BuildKit's peers read them: a `google.protobuf.Any` whose type is
//! `github.com/moby/buildkit/errdefs.<Name>+json` and whose value is JSON, written the way Go writes the structs
//! (proto field names, plain numbers), except for `Solve`, which is canonical protobuf JSON.
//!
//! Advice is a plain `google.rpc.Help`; peers that do not know it hand it on.

use crate::Detail;

use kiln_proto::prost::Message;
use kiln_proto::prost_types::Any;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};
use std::sync::LazyLock;

const PREFIX: &str = "github.com/moby/buildkit/errdefs.";
const SUFFIX: &str = "+json";
const DENIED: &str = "github.com/moby/buildkit/policysession.DecisionResponse+json";
const HELP: &str = "type.googleapis.com/google.rpc.Help";

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let needed = |file: &str| file.starts_with("errdefs/") || file.ends_with("/policysession.proto");
    DescriptorPool::from_file_descriptor_set(kiln_proto::descriptors(needed))
        .expect("the descriptors were compiled with the messages")
});

/// As an `Any`.
pub(crate) fn encode(detail: &Detail) -> Any {
    let (name, bytes, canonical) = match detail {
        Detail::Vertex(message) => ("Vertex", message.encode_to_vec(), false),
        Detail::Source(message) => ("Source", message.encode_to_vec(), false),
        Detail::Solve(message) => ("Solve", message.encode_to_vec(), true),
        Detail::Frontend(message) => ("Frontend", message.encode_to_vec(), false),
        Detail::FrontendCap(message) => ("FrontendCap", message.encode_to_vec(), false),
        Detail::Subrequest(message) => ("Subrequest", message.encode_to_vec(), false),
        Detail::Help(message) => {
            return Any { type_url: HELP.to_owned(), value: message.encode_to_vec() };
        }
        Detail::Denied(message) => {
            let name = "moby.buildkit.v1.sourcepolicy.policysession.DecisionResponse";
            let value = to_json(name, &message.encode_to_vec(), false);
            return Any { type_url: DENIED.to_owned(), value };
        }
        Detail::Other(any) => return any.clone(),
    };
    let json = to_json(&format!("errdefs.{name}"), &bytes, canonical);
    Any { type_url: format!("{PREFIX}{name}{SUFFIX}"), value: json }
}

/// Of an `Any`; one that cannot be read is kept as it is.
pub(crate) fn decode(any: &Any) -> Detail {
    if any.type_url == HELP {
        return Message::decode(any.value.as_slice())
            .map_or_else(|_| Detail::Other(any.clone()), Detail::Help);
    }
    let name = any.type_url.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX));
    let known = name.and_then(|name| {
        let bytes = from_json(&format!("errdefs.{name}"), &any.value)?;
        let bytes = bytes.as_slice();
        Some(match name {
            "Vertex" => Detail::Vertex(Message::decode(bytes).ok()?),
            "Source" => Detail::Source(Message::decode(bytes).ok()?),
            "Solve" => Detail::Solve(Box::new(Message::decode(bytes).ok()?)),
            "Frontend" => Detail::Frontend(Message::decode(bytes).ok()?),
            "FrontendCap" => Detail::FrontendCap(Message::decode(bytes).ok()?),
            "Subrequest" => Detail::Subrequest(Message::decode(bytes).ok()?),
            _ => return None,
        })
    });
    known.unwrap_or_else(|| Detail::Other(any.clone()))
}

/// The JSON of a message given by its full name and its bytes.
pub(crate) fn to_json(name: &str, bytes: &[u8], canonical: bool) -> Vec<u8> {
    let descriptor = POOL.get_message_by_name(name).expect("a message of ours");
    let message = DynamicMessage::decode(descriptor, bytes).expect("encoded by the same definition");
    let options = SerializeOptions::new()
        .use_proto_field_name(!canonical)
        .stringify_64_bit_integers(canonical)
        .use_enum_numbers(!canonical);
    let mut json = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut json);
    message.serialize_with_options(&mut serializer, &options).expect("messages have a JSON form");
    json
}

fn from_json(name: &str, json: &[u8]) -> Option<Vec<u8>> {
    let descriptor = POOL.get_message_by_name(name)?;
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut deserializer, &options).ok()?;
    Some(message.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kiln_proto::{errdefs, pb};

    fn json(detail: &Detail) -> (String, String) {
        let any = encode(detail);
        (any.type_url, String::from_utf8(any.value.to_vec()).expect("text"))
    }

    #[test]
    fn details_are_written_as_go_writes_them() {
        let vertex = Detail::Vertex(errdefs::Vertex { digest: "sha256:1".into() });
        let (url, text) = json(&vertex);
        assert_eq!(url, "github.com/moby/buildkit/errdefs.Vertex+json");
        assert_eq!(text, r#"{"digest":"sha256:1"}"#);
        let position = |line| Some(pb::Position { line, character: 0 });
        let source = Detail::Source(errdefs::Source {
            info: Some(pb::SourceInfo {
                filename: "Dockerfile".into(),
                data: Bytes::from_static(b"FROM x"),
                language: "Dockerfile".into(),
                ..Default::default()
            }),
            ranges: vec![pb::Range { start: position(3), end: position(4) }],
        });
        let (_, text) = json(&source);
        assert_eq!(
            text,
            r#"{"info":{"filename":"Dockerfile","data":"RlJPTSB4","language":"Dockerfile"},"ranges":[{"start":{"line":3},"end":{"line":4}}]}"#
        );
        let solve = errdefs::Solve {
            input_i_ds: vec!["a".into()],
            subject: Some(errdefs::solve::Subject::File(errdefs::FileAction { index: 2 })),
            ..Default::default()
        };
        let solve = Detail::Solve(Box::new(solve));
        assert_eq!(json(&solve).1, r#"{"inputIDs":["a"],"file":{"index":"2"}}"#);
        for detail in [vertex, source, solve] {
            assert_eq!(decode(&encode(&detail)), detail);
        }
    }

    #[test]
    fn advice_travels_once() {
        let error =
            crate::Error::unknown("no").hint(Some("deep advice")).context("outer").hint(Some("shallow"));
        let [help] = error.details() else { panic!("one detail: {error:?}") };
        let Detail::Help(message) = help else { panic!("advice: {help:?}") };
        assert_eq!(message.links[0].description, "deep advice");
        assert_eq!(encode(help).type_url, "type.googleapis.com/google.rpc.Help");
        assert_eq!(decode(&encode(help)), *help);
    }

    #[test]
    fn what_cannot_be_read_is_kept() {
        for (url, value) in [
            ("github.com/moby/buildkit/errdefs.Vertex+json", "no json"),
            ("github.com/moby/buildkit/errdefs.Nothing+json", "{}"),
            ("github.com/moby/buildkit/stack.Stack+json", "{}"),
        ] {
            let any = Any { type_url: url.into(), value: value.into() };
            assert_eq!(decode(&any), Detail::Other(any.clone()));
            assert_eq!(encode(&decode(&any)), any);
        }
    }
}
