use std::io::{Read, Write};
use std::process::{Command, Stdio};

use kiln_oci::Digest;

use super::{CompressOptions, Compression, Compressor, decompressor};
use crate::threads::Budget;

fn compress(plain: &[u8], options: &CompressOptions, helpers: usize, piece: usize) -> Vec<u8> {
    let mut out = Compressor::new(Vec::new(), options, &Budget::new(helpers)).expect("known");
    for piece in plain.chunks(piece) {
        out.write_all(piece).expect("memory");
    }
    let (packed, digest) = out.finish().expect("memory");
    assert_eq!(digest, Digest::sha256_of(plain));
    packed
}

/// Three and a half blocks of text that does not repeat exactly.
fn sample(bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let words = std::iter::from_fn(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(format!("word{} ", state >> 20).into_bytes())
    });
    words.flatten().take(bytes).collect()
}

#[test]
fn bytes_do_not_depend_on_threads_or_on_how_they_are_written() {
    let plain = sample(7 << 19);
    for kind in [Compression::Gzip, Compression::Zstd, Compression::Uncompressed] {
        for level in [None, Some(1), Some(9)] {
            let options = CompressOptions { kind, level };
            let one = compress(&plain, &options, 0, 1 << 20);
            for (helpers, piece) in [(1, 77_777), (4, 1 << 22)] {
                assert_eq!(compress(&plain, &options, helpers, piece), one, "{kind} {level:?}");
            }
            let mut back = Vec::new();
            decompressor(&one[..]).expect("magic").read_to_end(&mut back).expect("good");
            assert!(back == plain, "{kind} {level:?}");
        }
    }
}

#[test]
fn other_programs_read_it() {
    for (kind, program) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
        if Command::new(program).arg("--version").output().is_err() {
            eprintln!("skipped: {program} is not installed");
            continue;
        }
        for bytes in [0, 1, 1 << 20, (9 << 20) + 5] {
            let plain = sample(bytes);
            let packed = compress(&plain, &CompressOptions::new(kind), 2, 1 << 16);
            let mut child = Command::new(program)
                .args(["-d", "-c"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("installed");
            let mut stdin = child.stdin.take().expect("piped");
            let feed = std::thread::spawn(move || stdin.write_all(&packed));
            let out = child.wait_with_output().expect("runs");
            feed.join().expect("runs").expect("takes all");
            assert!(out.status.success() && out.stdout == plain, "{program} {bytes}");
        }
    }
}

#[test]
fn what_is_not_there_yet_says_so() {
    let error =
        Compressor::new(Vec::new(), &CompressOptions::new(Compression::Estargz), &Budget::new(0)).err();
    assert_eq!(error.expect("not there").to_string(), "eStargz compression is not supported");
}

/// Bytes with nothing to compress in them.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    })
    .take(bytes)
    .collect()
}

#[test]
fn what_cannot_be_compressed_is_stored_and_what_repeats_is_not() {
    let options = CompressOptions::new(Compression::Gzip);
    let noise = noise(3 << 20);
    let stored = compress(&noise, &options, 2, 1 << 20);
    assert!(stored.len() < noise.len() + noise.len() / 500, "{}", stored.len());
    let mut back = Vec::new();
    decompressor(&stored[..]).expect("magic").read_to_end(&mut back).expect("good");
    assert!(back == noise);
    // All bytes are as frequent as in noise here, but each piece comes again.
    let repeated = noise[..4 << 10].repeat(512);
    let packed = compress(&repeated, &options, 2, 1 << 20);
    assert!(packed.len() < repeated.len() / 50, "{}", packed.len());
    // Half of it compresses.
    let halves: Vec<u8> =
        noise.chunks(2 << 10).flat_map(|piece| [piece, &[b'x'; 2 << 10][..]].concat()).collect();
    let packed = compress(&halves, &options, 2, 1 << 20);
    assert!(packed.len() < halves.len() * 52 / 100, "{}", packed.len());
}
