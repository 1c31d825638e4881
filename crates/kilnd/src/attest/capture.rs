//! What a result's steps used.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_export::provenance::{BlobMaterial, Capture, ImageMaterial};
use kiln_llb::{ExecOp, MountKind, NetMode, Op};
use kiln_oci::Digest;
use kiln_solver::Job;
use kiln_worker::{Identifier, Loaded, SourcePin, VertexOp};

/// What the steps of a solved graph used, as far as the job ran or looked them up.
pub fn capture(job: &Job<VertexOp>, loaded: &Loaded) -> Capture {
    // The ops of the job are the ones that were used: a vertex may have come with another build.
    let used: HashMap<kiln_solver::Digest, Arc<VertexOp>> =
        job.vertices().into_iter().map(|vertex| (vertex.digest, vertex.op)).collect();
    let mut capture = Capture::new();
    for vertex in loaded.definition.ancestors(&loaded.definition.result().vertex) {
        let digest = kiln_solver::Digest::new(vertex.digest.as_str());
        let Some(used) = used.get(&digest) else { continue };
        match &vertex.op {
            Op::Source(_) => {
                if let Some(pin) = used.pin() {
                    source(&mut capture, pin);
                }
            }
            Op::Exec(exec) => step(&mut capture, exec),
            Op::Build(_) => capture.incomplete = true,
            _ => {}
        }
    }
    capture
}

fn source(capture: &mut Capture, found: SourcePin) {
    let digest = Digest::parse(&found.pin).ok();
    match (found.identifier, digest) {
        (Identifier::Image(id), digest) => capture.add_image(ImageMaterial {
            reference: id.reference.to_string(),
            platform: Some(id.platform.normalized()),
            digest,
            local: false,
        }),
        (Identifier::OciLayout(id), digest) => capture.add_image(ImageMaterial {
            reference: id.reference,
            platform: Some(id.platform.normalized()),
            digest,
            local: true,
        }),
        (Identifier::Local(id), _) => capture.add_local(&id.name),
        (Identifier::Git(id), _) => {
            let url = match id.reference.as_str() {
                "" => id.remote,
                reference => format!("{}#{reference}", id.remote),
            };
            capture.add_git(&url, &found.pin);
            for secret in [&id.auth_token_secret, &id.auth_header_secret] {
                if !secret.is_empty() {
                    capture.add_secret(secret, true);
                }
            }
            if !id.ssh_agent.is_empty() {
                capture.add_ssh(&id.ssh_agent, true);
            }
        }
        (Identifier::Http(id), Some(digest)) => capture.add_http(&id.url, digest),
        (Identifier::Blob(id), _) => capture.add_blob(BlobMaterial {
            local: id.oci_layout.is_some(),
            reference: id.reference,
            digest: id.digest,
        }),
        (Identifier::Http(_), None) => capture.incomplete = true,
    }
}

fn step(capture: &mut Capture, exec: &ExecOp) {
    for mount in &exec.mounts {
        match &mount.kind {
            MountKind::Secret(secret) => capture.add_secret(&secret.id, secret.optional),
            MountKind::Ssh(ssh) => capture.add_ssh(&ssh.id, ssh.optional),
            _ => {}
        }
    }
    for secret in &exec.secret_env {
        capture.add_secret(&secret.id, secret.optional);
    }
    capture.network_access |= exec.network != NetMode::None;
}
