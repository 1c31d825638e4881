use std::io::{Read, Write};

use super::{BulkReader, BulkWriter};

/// Bytes that differ from place to place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at) as u8).collect()
}

#[test]
fn what_is_written_is_read_again() {
    // On a disk where there is one: memory file systems have nothing to go past.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    for len in [0, 1, 4096, (1 << 20) - 1, 1 << 20, (9 << 20) + 4096, (45 << 20) + 7] {
        let path = dir.path().join("file");
        let plain = bytes(len);
        let mut writer = BulkWriter::new(std::fs::File::create(&path).unwrap());
        for piece in plain.chunks(70_001) {
            writer.write_all(piece).unwrap();
        }
        assert_eq!(writer.bytes(), len as u64);
        let mut file = writer.finish().unwrap();
        // Open as any other file.
        file.write_all(b"").unwrap();
        assert!(std::fs::read(&path).unwrap() == plain, "{len} written");
        let mut read = Vec::new();
        BulkReader::open(&path).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == plain, "{len} read");
    }
}

#[test]
fn parts_in_memory_and_on_the_disk_are_one_file() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path().join("file");
    let plain = bytes((21 << 20) + 99);
    let mut writer = BulkWriter::new(std::fs::File::create(&path).unwrap());
    writer.write_all(&plain).unwrap();
    writer.finish().unwrap().sync_all().unwrap();
    // Some pages in the middle come into memory.
    let file = std::fs::File::open(&path).unwrap();
    for at in [5_000_000, 9_999_999, 20 << 20] {
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut [0; 12_345], at).unwrap();
    }
    let mut read = Vec::new();
    BulkReader::open(&path).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == plain);
}

#[test]
fn a_full_disk_is_told_and_nothing_hangs() {
    let full = || BulkWriter::new(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let mut small = full();
    small.write_all(b"x").unwrap();
    assert_eq!(small.finish().unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let mut large = full();
    let failed = (0..100).find_map(|_| large.write_all(&[0; 1 << 20]).err());
    assert_eq!(failed.unwrap().kind(), std::io::ErrorKind::StorageFull);
    drop(large);
    // Given up before the failure is told, or just after it: either way dropping it ends.
    let mut given_up = full();
    let _ = given_up.write_all(&[0; 2 << 20]);
}

#[test]
fn a_reader_that_is_given_up_ends() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, bytes(16 << 20)).unwrap();
    let mut reader = BulkReader::open(&path).unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    drop(reader);
}

#[test]
fn reading_puts_nothing_into_memory() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path().join("file");
    let plain = bytes((20 << 20) + 99);
    let mut writer = BulkWriter::new(std::fs::File::create(&path).unwrap());
    writer.write_all(&plain).unwrap();
    writer.finish().unwrap().sync_all().unwrap();
    let file = std::fs::File::open(&path).unwrap();
    let is_cached = || super::cached::is_cached(&file, 12 << 20, 1 << 20);
    if !super::cached::is_told(&file) || is_cached() != Ok(false) {
        println!("not to be seen here: an old kernel, or a file system that keeps all files in memory");
        return;
    }
    let mut reader = BulkReader::open(&path).unwrap();
    let mut read = vec![0; 777];
    // From a place that is not aligned.
    reader.read_exact(&mut read).unwrap();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == plain);
    assert_eq!(is_cached(), Ok(false));
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut vec![0; 1 << 20], 12 << 20).unwrap();
    assert_eq!(is_cached(), Ok(true));
}
