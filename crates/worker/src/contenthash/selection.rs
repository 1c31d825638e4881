//! What a selector picked, and the digest of that.

use std::io::{self, Read};

use kiln_spool::{Reader, Spool};

use super::ContentError;
use super::form::{damaged, put_bytes, put_uint, read_uint};
use super::scratch::Scratch;
use super::select::SelectError;
use super::tree::{Here, Place, Tree, file_digest, own_digest};
use super::unread::Unread;
use crate::encode::{Encoder, Hash};

/// What a selector picked.
#[derive(Debug)]
pub(super) enum Selection {
    /// Stands for itself, without the name it was found under.
    Whole(Whole),
    /// Each with its name.
    Listed(Picks),
}

impl Selection {
    /// The digest, once all that was said to be unread is read.
    pub(super) fn digest(&self, tree: &Tree) -> io::Result<Hash> {
        match self {
            Selection::Whole(whole) => whole.digest(tree),
            Selection::Listed(picks) => picks.digest(tree),
        }
    }
}

/// One thing that was picked.
#[derive(Debug)]
pub(super) enum Whole {
    /// All is known of it.
    Known(Hash),
    /// A file of which only the header is known, until it is read.
    File { header: Hash, place: Place },
    /// A path with everything below it, of which some file has to be read.
    Below(Vec<u8>),
}

impl Whole {
    /// The rooted path with everything below it.
    pub(super) fn new(
        tree: &Tree,
        rooted: &str,
        follow_links: bool,
        unread: &mut Unread<'_>,
    ) -> Result<Whole, ContentError> {
        let Some(path) = tree.resolve(rooted, follow_links)? else {
            return Err(SelectError::NotFound { path: rooted.to_owned() }.into());
        };
        if let Some(hash) = tree.deep_digest(&path)? {
            return Ok(Whole::Known(hash));
        }
        let mut walk = tree.walk(&path)?;
        while let Some(here) = walk.next()? {
            if own_digest(&here.record()).is_none() {
                unread.add(&here)?;
            }
        }
        Ok(Whole::Below(path))
    }

    /// The path alone.
    pub(super) fn alone(here: &Here<'_>, unread: &mut Unread<'_>) -> Result<Whole, ContentError> {
        if let Some(hash) = own_digest(&here.record()) {
            return Ok(Whole::Known(hash));
        }
        unread.add(here)?;
        Ok(Whole::File { header: *here.record().header, place: here.place() })
    }

    fn digest(&self, tree: &Tree) -> io::Result<Hash> {
        // Nothing that was read is ever forgotten.
        Ok(match self {
            Whole::Known(hash) => *hash,
            Whole::File { header, place } => {
                file_digest(header, &tree.tables()[place.layer].content(place.room)?)
            }
            Whole::Below(path) => tree.deep_digest(path)?.ok_or_else(damaged)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Whole::Known(hash) => {
                out.push(0);
                out.extend_from_slice(hash);
            }
            Whole::File { header, place } => {
                out.push(1);
                out.extend_from_slice(header);
                put_uint(out, place.layer);
                out.extend_from_slice(&place.room.to_le_bytes());
            }
            Whole::Below(path) => {
                out.push(2);
                put_bytes(out, path);
            }
        }
    }

    fn read(input: &mut impl Read) -> io::Result<Whole> {
        let [tag] = array(input)?;
        Ok(match tag {
            0 => Whole::Known(array(input)?),
            1 => {
                let (header, layer) = (array(input)?, read_uint(input)?);
                Whole::File { header, place: Place { layer, room: u64::from_le_bytes(array(input)?) } }
            }
            2 => {
                let mut path = Vec::new();
                read_bytes(input, &mut path)?;
                Whole::Below(path)
            }
            _ => return Err(damaged()),
        })
    }
}

/// Things that were picked, with their names, which may be as many as there are paths.
#[derive(Debug)]
pub(super) struct Picks {
    list: Spool,
    count: u64,
    buffer: Vec<u8>,
}

impl Picks {
    pub(super) fn new(scratch: &Scratch) -> Picks {
        Picks { list: scratch.spool(), count: 0, buffer: Vec::new() }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn add(&mut self, name: &str, item: &Whole) -> io::Result<()> {
        self.buffer.clear();
        put_bytes(&mut self.buffer, name.as_bytes());
        item.write(&mut self.buffer);
        self.count += 1;
        self.list.append(&self.buffer)
    }

    /// The first one, without its name.
    pub(super) fn first(&self) -> io::Result<Whole> {
        let mut input = Reader::new(&self.list, 0);
        read_bytes(&mut input, &mut Vec::new())?;
        Whole::read(&mut input)
    }

    fn digest(&self, tree: &Tree) -> io::Result<Hash> {
        match self.list.as_slice() {
            Some(mut all) => self.digest_of(&mut all, tree),
            None => self.digest_of(&mut Reader::new(&self.list, 0), tree),
        }
    }

    fn digest_of(&self, input: &mut impl Read, tree: &Tree) -> io::Result<Hash> {
        let mut encoder = Encoder::new("kiln.content.list.v1");
        encoder.u64(self.count);
        let mut name = Vec::new();
        for _ in 0..self.count {
            read_bytes(input, &mut name)?;
            encoder.bytes(&name).hash(&Whole::read(input)?.digest(tree)?);
        }
        Ok(encoder.finish())
    }
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_bytes(input: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.resize(read_uint(input)?, 0);
    input.read_exact(bytes)
}
