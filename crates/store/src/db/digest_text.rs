//! Digests as they stand in the tables of cache keys: there are several in each row, and again in its indexes.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef};

const PREFIX: &str = "sha256:";

/// Bytes of a SHA-256.
const BYTES: usize = 32;

/// A text that most often is a SHA-256 digest as OCI writes it (`sha256:` and 64 lower-case hexadecimal digits): those are stored as
/// their bytes, any other as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DigestText<T>(pub(crate) T);

impl<T: AsRef<str>> ToSql for DigestText<T> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = self.0.as_ref();
        Ok(match packed(text) {
            Some(bytes) => ToSqlOutput::Owned(Value::Blob(bytes.into())),
            None => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

impl FromSql for DigestText<String> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) if bytes.len() == BYTES => {
                Ok(Self(PREFIX.to_owned() + &hex::encode(bytes)))
            }
            ValueRef::Text(_) => String::column_result(value).map(Self),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

fn packed(text: &str) -> Option<[u8; BYTES]> {
    let digits =
        text.strip_prefix(PREFIX).filter(|digits| !digits.contains(|c: char| c.is_ascii_uppercase()))?;
    let mut bytes = [0; BYTES];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;

    fn there_and_back(text: &str) -> (String, String) {
        let db = Connection::open_in_memory().expect("opens");
        db.query_row("SELECT ?1, typeof(?1)", [DigestText(text)], |row| {
            Ok((row.get::<_, DigestText<String>>(0)?.0, row.get(1)?))
        })
        .expect("one row")
    }

    #[test]
    fn only_what_is_written_as_oci_does_is_stored_as_bytes() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(there_and_back(&digest), (digest.clone(), "blob".to_owned()));
        let others = [
            "",
            "key",
            "sha256:",
            &digest[..70],
            &format!("{digest}0"),
            &digest.to_uppercase(),
            &digest.replace('f', "F"),
        ];
        for other in others {
            assert_eq!(there_and_back(other), (other.to_owned(), "text".to_owned()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "(sha256:)?[0-9a-fA-F]{60,66}|.*") {
            prop_assume!(!text.contains('\0'));
            prop_assert_eq!(there_and_back(&text).0, text);
        }
    }
}
