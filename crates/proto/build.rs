//! Compiles `proto/**/*.proto` without `protoc`.

use prost::Message;
use std::path::Path;

const FILES: &[&str] = &[
    "containerd/services/content/v1/content.proto",
    "errdefs/errdefs.proto",
    "fsutil/types.proto",
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "kiln/v1/images.proto",
    "moby/buildkit/secrets/v1/secrets.proto",
    "moby/buildkit/v1/apicaps.proto",
    "moby/buildkit/v1/control.proto",
    "moby/buildkit/v1/frontend.proto",
    "moby/buildkit/v1/policysession.proto",
    "moby/buildkit/v1/sourcepolicy.proto",
    "moby/buildkit/v1/types.proto",
    "moby/exporter/v1/exporter.proto",
    "moby/filesync/v1/auth.proto",
    "moby/filesync/v1/filesync.proto",
    "moby/sshforward/v1/ssh.proto",
    "moby/upload/v1/upload.proto",
    "opentelemetry/proto/collector/trace/v1/trace_service.proto",
    "pb/ops.proto",
    "stack/stack.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [root])?;
    let out = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        // Maps in key order: equal messages have equal bytes.
        .btree_map(".")
        // File contents and session traffic pass through without being copied out of the frame.
        .bytes(".")
        .include_file("packages.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
