//! Tables as they are kept with their layers: how many records, and these in order.

use std::io::{self, Read};

use kiln_spool::{Reader, Spool};

use super::builder::{Ordered, TableError};
use super::form::{Entry, Room, Writer, put_uint, read_uint};
use super::record::shared_len;
use super::scratch::Scratch;
use super::table::LayerTable;

/// Names the layout.
const MAGIC: &[u8; 8] = b"kilnct02";
/// One that never says that a header is the same, and can be read as well.
const MAGIC_BEFORE: &[u8; 8] = b"kilnct01";

/// Why a stored table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// From another version, or damaged. It is made anew then.
    #[error("stored content digests are not readable")]
    Bad,
    /// It is too long for memory, and the state folder does not take it.
    #[error(transparent)]
    Table(TableError),
}

impl From<TableError> for StoredError {
    fn from(error: TableError) -> StoredError {
        match error {
            TableError::Path(_) => StoredError::Bad,
            error => StoredError::Table(error),
        }
    }
}

impl LayerTable {
    /// The table as it is stored.
    ///
    /// # Errors
    /// What the state folder says.
    pub fn encode(&self, scratch: &Scratch) -> Result<Spool, TableError> {
        let mut out = scratch.spool();
        let mut buffer = MAGIC.to_vec();
        put_uint(&mut buffer, self.len() as usize);
        out.append(&buffer)?;
        let (mut writer, mut path) = (Writer::default(), Vec::new());
        let mut cursor = self.cursor(b"")?;
        while let Some(here) = &mut cursor {
            let shared = shared_len(&path, here.path());
            buffer.clear();
            writer
                .write(&here.record(), shared, Room::IfKnown, &mut buffer)
                .map_err(TableError::too_long(&here.record()))?;
            out.append(&buffer)?;
            path.truncate(shared);
            path.extend_from_slice(&here.path()[shared..]);
            if !here.advance()? {
                break;
            }
        }
        Ok(out)
    }

    /// Reads what [`LayerTable::encode`] wrote.
    ///
    /// # Errors
    /// [`StoredError`], for anything else as well.
    pub fn decode(stored: &Spool, scratch: &Scratch) -> Result<LayerTable, StoredError> {
        match stored.as_slice() {
            Some(mut all) => LayerTable::decode_from(&mut all, scratch),
            None => LayerTable::decode_from(&mut Reader::new(stored, 0), scratch),
        }
    }

    fn decode_from(input: &mut impl Read, scratch: &Scratch) -> Result<LayerTable, StoredError> {
        let bad = |_: io::Error| StoredError::Bad;
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic).map_err(bad)?;
        if ![MAGIC, MAGIC_BEFORE].contains(&&magic) {
            return Err(StoredError::Bad);
        }
        let count = read_uint(input).map_err(bad)?;
        let mut table = Ordered::new(scratch);
        let mut entry = Entry::default();
        for _ in 0..count {
            entry.read(input).map_err(bad)?;
            if !table.push(&entry.record())? {
                return Err(StoredError::Bad);
            }
        }
        let table = table.finish();
        table.take_unsaved();
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::builder::TableBuilder;
    use super::super::record::{Record, RecordKind};
    use super::*;
    use crate::encode::Hash;

    fn scratch() -> Scratch {
        Scratch::new(std::path::Path::new("/nowhere"))
    }

    fn stored(table: &LayerTable) -> Vec<u8> {
        table.encode(&scratch()).unwrap().as_slice().unwrap().to_vec()
    }

    /// All that is said, as text.
    fn said(table: &LayerTable) -> Vec<String> {
        let mut said = Vec::new();
        let mut cursor = table.cursor(b"").unwrap();
        while let Some(here) = &mut cursor {
            said.push(format!("{:?}", here.record()));
            if !here.advance().unwrap() {
                break;
            }
        }
        said
    }

    #[derive(Clone, Debug)]
    enum Kind {
        File { hashed: bool },
        Dir { opaque: bool },
        Symlink(Vec<u8>),
        Special,
        Whiteout,
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            any::<bool>().prop_map(|hashed| Kind::File { hashed }),
            any::<bool>().prop_map(|opaque| Kind::Dir { opaque }),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(Kind::Symlink),
            Just(Kind::Special),
            Just(Kind::Whiteout),
        ]
    }

    /// The first layout, as it was written.
    fn as_before(table: &LayerTable) -> Vec<u8> {
        let mut out = MAGIC_BEFORE.to_vec();
        put_uint(&mut out, table.len() as usize);
        let mut path = Vec::new();
        let mut cursor = table.cursor(b"").unwrap();
        while let Some(here) = &mut cursor {
            let shared = shared_len(&path, here.path());
            Writer::default().write(&here.record(), shared, Room::IfKnown, &mut out).unwrap();
            path = here.path().to_vec();
            if !here.advance().unwrap() {
                break;
            }
        }
        out
    }

    proptest! {
        #[test]
        fn comes_back_from_bytes(rows in prop::collection::vec(("[a-c./]{0,12}", kinds(), 0_u8..3), 0..40)) {
            let mut builder = TableBuilder::new(&scratch());
            let mut model = std::collections::BTreeMap::new();
            let hashed: Hash = [9; 32];
            for (path, kind, header) in &rows {
                let (kind, content) = match kind {
                    Kind::File { hashed: known } => (RecordKind::File, known.then_some(&hashed)),
                    Kind::Dir { opaque } => (RecordKind::Dir { opaque: *opaque }, None),
                    Kind::Symlink(target) => (RecordKind::Symlink { target }, None),
                    Kind::Special => (RecordKind::Special, None),
                    Kind::Whiteout => (RecordKind::Whiteout, None),
                };
                let header = if kind == RecordKind::Whiteout { [0; 32] } else { [*header; 32] };
                let record = Record { path: path.as_bytes(), kind, header: &header, content };
                builder.push(&record).unwrap();
                model.insert(path.replace('/', "\0"), format!("{record:?}"));
            }
            let table = builder.finish().unwrap();
            prop_assert_eq!(table.len() as usize, model.len());
            prop_assert_eq!(&said(&table), &model.into_values().collect::<Vec<_>>());
            for bytes in [stored(&table), as_before(&table)] {
                let again = LayerTable::decode_from(&mut &*bytes, &scratch()).unwrap();
                prop_assert_eq!(said(&table), said(&again));
                prop_assert_eq!(stored(&table), stored(&again));
                prop_assert!(!again.take_unsaved());
            }
        }

        #[test]
        fn damaged_bytes_are_refused_or_read(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = LayerTable::decode_from(&mut &*bytes, &scratch());
            bytes.splice(0..0, *MAGIC);
            let _ = LayerTable::decode_from(&mut &*bytes, &scratch());
        }
    }
}
