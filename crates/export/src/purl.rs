//! Package URLs of images.

use kiln_oci::{Platform, Reference, ReferenceError};

/// The package URL of an image in a registry, `pkg:docker/namespace/name@tag?digest=…&platform=…`.
pub fn image_purl(name: &str, platform: Option<&Platform>) -> Result<String, ReferenceError> {
    typed_purl("docker", name, platform, &[])
}

/// The same for another type of package, with further qualifiers.
pub(crate) fn typed_purl(
    kind: &str,
    name: &str,
    platform: Option<&Platform>,
    further: &[(&str, &str)],
) -> Result<String, ReferenceError> {
    let reference = Reference::parse(name)?.with_default_tag();
    let mut qualifiers = Vec::new();
    if let Some(digest) = reference.digest() {
        qualifiers.push(format!("digest={}", escape(digest.as_str())));
    }
    if let Some(platform) = platform {
        qualifiers.push(format!("platform={}", escape(&platform.normalized().short())));
    }
    qualifiers.extend(further.iter().map(|(key, value)| format!("{key}={}", escape(value))));
    let path = reference.familiar_name();
    let path: Vec<String> = path.split('/').map(|part| escape(part).replace(':', "%3A")).collect();
    let mut purl = format!("pkg:{kind}/{}", path.join("/"));
    if let Some(tag) = reference.tag() {
        purl.push('@');
        purl.push_str(&escape(tag));
    }
    if !qualifiers.is_empty() {
        purl.push('?');
        purl.push_str(&qualifiers.join("&"));
    }
    Ok(purl)
}

/// Percent escapes, but for what package URLs leave as it is; in names they escape the colon too.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_images() {
        let arm = Platform::linux("arm64");
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, platform, purl) in [
            ("alpine", None, "pkg:docker/alpine@latest".to_owned()),
            ("alpine:3.20", Some(&arm), "pkg:docker/alpine@3.20?platform=linux%2Farm64".to_owned()),
            ("localhost:5000/a/b:c", None, "pkg:docker/localhost%3A5000/a/b@c".to_owned()),
            (
                &format!("a/b@{digest}"),
                Some(&arm),
                format!("pkg:docker/a/b?digest={digest}&platform=linux%2Farm64"),
            ),
        ] {
            assert_eq!(image_purl(name, platform).unwrap(), purl);
        }
    }
}
