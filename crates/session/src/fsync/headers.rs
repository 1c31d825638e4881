//! Lists in headers, also of values that are not ASCII.

use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};

use super::error::SyncError;

/// Puts a list of values under `key`. If one of them is not ASCII, all are escaped as in a URL's query and `<key>-encoded` says so.
pub(crate) fn encode_values<S: AsRef<str>>(
    map: &mut MetadataMap,
    key: &'static str,
    values: &[S],
) -> Result<(), SyncError> {
    let error = || SyncError::Header { key: key.into() };
    let encode = values.iter().any(|value| !value.as_ref().is_ascii());
    for value in values {
        let text = if encode { escape(value.as_ref()) } else { value.as_ref().to_string() };
        map.append(key, AsciiMetadataValue::try_from(text).map_err(|_| error())?);
    }
    if encode {
        let flag = AsciiMetadataKey::from_bytes(format!("{key}-encoded").as_bytes()).map_err(|_| error())?;
        map.insert(flag, AsciiMetadataValue::from_static("1"));
    }
    Ok(())
}

/// The list of values under `key`, unescaped where they are marked as escaped.
pub(crate) fn decode_values(map: &MetadataMap, key: &str) -> Vec<String> {
    let flag = map.get(format!("{key}-encoded").as_str()).and_then(|value| value.to_str().ok());
    let encoded = matches!(flag, Some("1" | "t" | "T" | "true" | "TRUE" | "True"));
    let values = map.get_all(key).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    values.map(|value| if encoded { unescape(&value) } else { value }).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Empty if it is not well formed, as the other end would have it.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else { return String::new() };
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_alphabets_survive() {
        let mut map = MetadataMap::new();
        encode_values(&mut map, "include-patterns", &["å b%+", "plain"]).expect("can be escaped");
        assert_eq!(map.get("include-patterns-encoded").map(|v| v.as_bytes()), Some(&b"1"[..]));
        assert_eq!(decode_values(&map, "include-patterns"), ["å b%+", "plain"]);
        let mut plain = MetadataMap::new();
        encode_values(&mut plain, "followpaths", &["a b%20"]).expect("is ASCII");
        assert_eq!(decode_values(&plain, "followpaths"), ["a b%20"]);
        assert!(encode_values(&mut plain, "dir-name", &["a\nb"]).is_err());
    }
}
