//! Digests as the solver sees them: short strings compared for equality, with the hash that combines them.

use std::fmt;
use std::sync::Arc;

/// A digest of a vertex, of an op, or of content: `sha256:<hex>`, or one of the two forms of digest that are
/// never found again by another build: `random:<hex>` and `session:<...>`. Cheap to clone.
///
/// The solver only compares digests and combines them, it does not check their form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

impl Digest {
    /// Takes a digest in its text form.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Digest(text.into())
    }

    /// `sha256:<hex>` of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Digest::of_parts(&[bytes])
    }

    /// `sha256:<hex>` of the concatenation of `parts`. The caller frames them (lengths, tags).
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for part in parts {
            context.update(part);
        }
        let hash = context.finish();
        let mut text = String::with_capacity(7 + 64);
        text.push_str("sha256:");
        for byte in hash.as_ref() {
            text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
            text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        Digest(text.into())
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text form, shared.
    pub(crate) fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// True for digests that no later build computes again; keys made of them are not kept.
    pub fn is_ephemeral(&self) -> bool {
        self.0.starts_with("random:") || self.0.starts_with("session:")
    }
}

/// The key of an op without inputs: `sha256` of `<digest>@<output>`, as remote caches have it. Content keys
/// use output -1. A `random:` digest stays what it is.
pub fn root_key(digest: &Digest, output: i64) -> Digest {
    if digest.as_str().starts_with("random:") {
        return digest.clone();
    }
    Digest::of(format!("{digest}@{output}").as_bytes())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Digest {
    fn from(text: &str) -> Self {
        Digest::new(text)
    }
}

impl From<String> for Digest {
    fn from(text: String) -> Self {
        Digest::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_have_the_registry_form() {
        assert_eq!(
            Digest::of(b"abc").as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(Digest::of_parts(&[b"a", b"bc"]), Digest::of(b"abc"));
    }

    #[test]
    fn root_keys_name_the_output_and_keep_random_digests() {
        let digest = Digest::new("sha256:aa");
        assert_eq!(root_key(&digest, -1), Digest::of(b"sha256:aa@-1"));
        assert_ne!(root_key(&digest, 0), root_key(&digest, 1));
        assert_eq!(root_key(&Digest::new("random:1"), 0), Digest::new("random:1"));
        assert!(Digest::new("session:x").is_ephemeral() && !digest.is_ephemeral());
    }
}
