//! When a source changed last.

use super::resolver::Service;
use crate::{Bridge, Error, MetaRequest, SolveRequest};
use bytes::Bytes;
use kiln_llb::{Constraints, State};
use kiln_oci::Timestamp;
use kiln_proto::pb;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};

const BLOCK: u64 = 512;

impl<B: Bridge> Service<'_, B> {
    /// A commit's time, that of a download as the server says it, else the youngest file in a downloaded archive.
    pub(super) async fn time_of_source(
        &self,
        identifier: &str,
        attrs: &BTreeMap<String, String>,
        log_name: &str,
    ) -> Result<Option<Timestamp>, Error> {
        let source = pb::SourceOp { identifier: identifier.to_owned(), attrs: attrs.clone() };
        let request = MetaRequest {
            log_name: log_name.to_owned(),
            git_objects: identifier.starts_with("git://"),
            ..MetaRequest::default()
        };
        let meta = self.bridge.resolve_source_meta(source, request).await?;
        if let Some(git) = meta.git.filter(|git| !git.commit_object.is_empty()) {
            return commit_time(&git.commit_object).map(Some);
        }
        let Some(http) = meta.http else { return Ok(None) };
        if http.last_modified.is_some() {
            return Ok(http.last_modified);
        }
        let state = State::source(identifier, attrs.clone(), &[], Constraints::new());
        let request = SolveRequest { definition: Some(self.marshal(&state)?), ..SolveRequest::default() };
        let Some(reference) = self.solve_single(request).await? else { return Ok(None) };
        let filename = attrs.get(kiln_llb::attrs::HTTP_FILENAME).unwrap_or(&http.filename);
        let data = self.bridge.read_file(&reference, filename, None).await?;
        let found = tokio::task::spawn_blocking(move || youngest_in_archive(&data)).await;
        Ok(found.unwrap_or_default())
    }
}

/// The committer's time of a commit as git stores it.
fn commit_time(commit: &Bytes) -> Result<Timestamp, Error> {
    let bad = || Error::unknown("failed to parse commit object: no committer time");
    let text = String::from_utf8_lossy(commit);
    let head = text.split("\n\n").next().unwrap_or_default();
    let line = head.lines().find_map(|line| line.strip_prefix("committer ")).ok_or_else(bad)?;
    // `Name <address> seconds zone`
    let seconds = line.rsplit(' ').nth(1).and_then(|word| word.parse().ok());
    seconds.and_then(Timestamp::from_unix).ok_or_else(bad)
}

/// The time of the youngest regular file in a tar archive, which may be gzipped; none if it is no such thing.
fn youngest_in_archive(data: &[u8]) -> Option<Timestamp> {
    let mut reader: Box<dyn Read + '_> = match data {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(data))),
        _ => Box::new(data),
    };
    let mut youngest = None;
    loop {
        let mut header = [0; BLOCK as usize];
        match reader.read_exact(&mut header) {
            Ok(()) => {}
            // Whatever ends in the middle is taken as far as it goes.
            Err(_) => return youngest,
        }
        if header.iter().all(|byte| *byte == 0) {
            return youngest;
        }
        let size = octal(&header[124..136])?;
        let kind = header[156];
        if matches!(kind, b'0' | 0) {
            let time = octal(&header[136..148]).and_then(|seconds| i64::try_from(seconds).ok());
            youngest = youngest.max(time.and_then(Timestamp::from_unix));
        }
        let skip = size.checked_next_multiple_of(BLOCK)?;
        if std::io::copy(&mut reader.by_ref().take(skip), &mut std::io::sink()).ok()? < skip {
            return youngest;
        }
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, time: i64, data: &[u8]) -> Vec<u8> {
        let mut header = [0u8; 512];
        header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
        header[136..148].copy_from_slice(format!("{time:011o}\0").as_bytes());
        header[156] = kind;
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    #[test]
    fn the_youngest_file_counts() {
        let mut archive = entry(b'0', 100, b"abc");
        archive.extend(entry(b'5', 900, b""));
        archive.extend(entry(b'0', 500, &[1; 600]));
        assert_eq!(youngest_in_archive(&archive), Timestamp::from_unix(500));
        archive.extend([0; 1024]);
        assert_eq!(youngest_in_archive(&archive), Timestamp::from_unix(500));
        assert_eq!(youngest_in_archive(b"no archive"), None);
    }

    #[test]
    fn commits_have_times() {
        let commit = Bytes::from_static(
            b"tree 1\nauthor A <a@b> 5 +0000\ncommitter C D <c@d> 1700000000 +0100\n\ncommitter x <y> 7 +0\n",
        );
        assert_eq!(commit_time(&commit).expect("time"), Timestamp::from_unix(1_700_000_000).expect("valid"));
        assert!(commit_time(&Bytes::from_static(b"tree 1\n")).is_err());
    }
}
