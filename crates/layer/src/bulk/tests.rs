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

#[test]
fn parts_of_a_file_are_written_one_after_the_other() {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = dir.path().join("file");
    // From and up to places that are aligned and places that are not; small parts, and parts that go past memory.
    let mb = 1 << 20;
    for (from, to, len) in [
        (0, 0, 5),
        (2560, 4097, 9000),
        (2560, 30 * mb + 1, 30 * mb + 9),
        (4096, 12 * mb, 24 * mb + 3),
        (11 * mb + 512, 30 * mb + 7, 45 * mb),
        (10 * mb, 20 * mb, 20 * mb),
    ] {
        let plain = bytes(len);
        let file = std::fs::File::create(&path).unwrap();
        let mut middle = BulkWriter::new(file.try_clone().unwrap());
        middle.skip(from as u64).unwrap();
        for piece in plain[from..to].chunks(70_001) {
            middle.write_all(piece).unwrap();
        }
        assert_eq!(middle.bytes(), to as u64);
        middle.finish().unwrap();
        let mut around = BulkWriter::new(file);
        around.write_all(&plain[..from]).unwrap();
        around.skip((to - from) as u64).unwrap();
        around.write_all(&plain[to..]).unwrap();
        assert_eq!(around.bytes(), len as u64);
        around.finish().unwrap().write_all(b"").unwrap();
        assert!(std::fs::read(&path).unwrap() == plain, "{from} {to} {len}");
    }
}
