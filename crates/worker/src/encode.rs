//! The written encoding of everything that enters a digest here: a tag that names the kind and version of what
//! follows, then fields in a fixed order. Numbers are big-endian and of fixed width, texts and lists carry their
//! length, maps are sorted by key. Two different values never have the same encoding, so a digest of one can't
//! stand for the other. A changed layout gets a new tag.

use ring::digest::{Context, SHA256};

/// A SHA-256 digest as raw bytes.
pub type Hash = [u8; 32];

/// Hashes an encoding as it is written.
pub struct Encoder(Context);

impl Encoder {
    /// An encoding that starts with `tag`.
    pub fn new(tag: &str) -> Encoder {
        let mut encoder = Encoder(Context::new(&SHA256));
        encoder.bytes(tag.as_bytes());
        encoder
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Encoder {
        self.u64(bytes.len() as u64);
        self.0.update(bytes);
        self
    }

    /// A text with its length.
    pub fn str(&mut self, text: &str) -> &mut Encoder {
        self.bytes(text.as_bytes())
    }

    pub fn u64(&mut self, number: u64) -> &mut Encoder {
        self.0.update(&number.to_be_bytes());
        self
    }

    pub fn u32(&mut self, number: u32) -> &mut Encoder {
        self.0.update(&number.to_be_bytes());
        self
    }

    pub fn i64(&mut self, number: i64) -> &mut Encoder {
        self.0.update(&number.to_be_bytes());
        self
    }

    pub fn bool(&mut self, flag: bool) -> &mut Encoder {
        self.u8(flag.into())
    }

    pub fn u8(&mut self, number: u8) -> &mut Encoder {
        self.0.update(&[number]);
        self
    }

    /// A digest, whose length is fixed.
    pub fn hash(&mut self, hash: &Hash) -> &mut Encoder {
        self.0.update(hash);
        self
    }

    /// A list: the number of items, then each.
    pub fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut each: impl FnMut(&mut Encoder, T),
    ) -> &mut Encoder {
        self.u64(items.len() as u64);
        for item in items {
            each(self, item);
        }
        self
    }

    /// A list of texts in their order.
    pub fn strs<T: AsRef<str>>(&mut self, items: &[T]) -> &mut Encoder {
        self.list(items.iter(), |encoder, item| {
            encoder.str(item.as_ref());
        })
    }

    /// Something that may be missing: one byte says which.
    pub fn option<T>(&mut self, item: Option<T>, each: impl FnOnce(&mut Encoder, T)) -> &mut Encoder {
        self.bool(item.is_some());
        if let Some(item) = item {
            each(self, item);
        }
        self
    }

    /// The digest of all that was written.
    pub fn finish(self) -> Hash {
        let digest = self.0.finish();
        digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
    }
}

/// `hash` as `sha256:<hex>`.
pub fn digest_of(hash: Hash) -> kiln_oci::Digest {
    kiln_oci::Digest::from_sha256(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_keep_fields_apart() {
        let of = |a: &str, b: &str| {
            let mut encoder = Encoder::new("t");
            encoder.str(a).str(b);
            encoder.finish()
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("", "abc"), of("abc", ""));
    }

    #[test]
    fn the_layout_does_not_drift() {
        let mut encoder = Encoder::new("tag");
        encoder.str("x").u32(1).i64(-1).bool(true).strs(&["a", "b"]).option(None::<u8>, |_, _| {});
        let mut plain = Vec::new();
        for part in [
            &3_u64.to_be_bytes()[..],
            b"tag",
            &1_u64.to_be_bytes(),
            b"x",
            &1_u32.to_be_bytes(),
            &(-1_i64).to_be_bytes(),
            &[1],
            &2_u64.to_be_bytes(),
            &1_u64.to_be_bytes(),
            b"a",
            &1_u64.to_be_bytes(),
            b"b",
            &[0],
        ] {
            plain.extend_from_slice(part);
        }
        assert_eq!(&encoder.finish()[..], ring::digest::digest(&SHA256, &plain).as_ref());
    }
}
