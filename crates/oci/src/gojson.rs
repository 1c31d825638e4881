//! JSON with the bytes that Go's `encoding/json` would give.
//!
//! Digests of image documents depend on every byte. Go writes `<`, `>` and `&` and the two line separators
//! of Unicode as escapes, which `serde_json` does not; field order is up to the types.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

/// The document on one line, like `json.Marshal`.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, CompactFormatter)
}

/// The document indented by two spaces, like `json.MarshalIndent(v, "", "  ")`.
pub fn to_vec_indented<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    write(value, PrettyFormatter::with_indent(b"  "))
}

/// Like [`to_vec`] for a value with raw JSON inside, whose white space goes too.
pub fn to_vec_compacted<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut out = to_vec(value)?;
    let (mut kept, mut in_string, mut escaped) = (0, false, false);
    for at in 0..out.len() {
        let byte = out[at];
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out[kept] = byte;
        kept += 1;
    }
    out.truncate(kept);
    Ok(out)
}

fn write<T: Serialize + ?Sized, F: Formatter>(value: &T, inner: F) -> serde_json::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(1024);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Escaping(inner)))?;
    Ok(out)
}

/// Adds Go's escapes to another formatter.
struct Escaping<F>(F);

/// Hands one method with the given further parameters on to the inner formatter.
macro_rules! pass_on {
    ($($name:ident($($arg:ident: $type:ty),*)),* $(,)?) => {$(
        fn $name<W: ?Sized + Write>(&mut self, writer: &mut W, $($arg: $type),*) -> io::Result<()> {
            self.0.$name(writer, $($arg),*)
        }
    )*};
}

impl<F: Formatter> Formatter for Escaping<F> {
    pass_on! {
        begin_array(), end_array(), begin_array_value(first: bool), end_array_value(),
        begin_object(), end_object(), begin_object_key(first: bool), end_object_key(),
        begin_object_value(), end_object_value(),
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        escape(writer, fragment)
    }

    fn write_raw_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Outside of strings JSON has none of these characters.
        escape(writer, fragment)
    }
}

fn escape<W: ?Sized + Write>(writer: &mut W, text: &str) -> io::Result<()> {
    let mut rest = text;
    while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        let (plain, tail) = rest.split_at(at);
        let special = tail.chars().next().expect("found above");
        writer.write_all(plain.as_bytes())?;
        write!(writer, "\\u{:04x}", special as u32)?;
        rest = &tail[special.len_utf8()..];
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    #[test]
    fn compacts_raw_values() {
        let raw =
            serde_json::value::RawValue::from_string(r#"{ "a b" : [ 1.0 , "x \" y \\" , "<" ] }"#.into())
                .unwrap();
        let compact = String::from_utf8(super::to_vec_compacted(&raw).unwrap()).unwrap();
        assert_eq!(compact, r#"{"a b":[1.0,"x \" y \\","\u003c"]}"#);
    }

    #[test]
    fn escapes_like_go() {
        let value = serde_json::json!({"a<": ["x && y > z", "\u{2028}é\n"], "b": [], "c": {}});
        assert_eq!(
            String::from_utf8(super::to_vec(&value).unwrap()).unwrap(),
            r#"{"a\u003c":["x \u0026\u0026 y \u003e z","\u2028é\n"],"b":[],"c":{}}"#
        );
        assert_eq!(
            String::from_utf8(super::to_vec_indented(&value).unwrap()).unwrap(),
            "{\n  \"a\\u003c\": [\n    \"x \\u0026\\u0026 y \\u003e z\",\n    \"\\u2028é\\n\"\n  ],\n  \"b\": [],\n  \"c\": {}\n}"
        );
    }
}
