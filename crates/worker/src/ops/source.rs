//! Source vertices: by what they are known, and bringing them in.

use kiln_llb::SourceOp;
use kiln_solver::{CacheMap, Digest, OpContext};
use kiln_store::Ref;

use crate::context::{first_build, sessions_of};
use crate::encode::{Encoder, Hash, digest_of};
use crate::error::{Error, Result};
use crate::op::{VertexOp, solver_digest};
use crate::source::{Found, Identifier, SourcePin};

pub async fn cache_map(
    vertex: &VertexOp,
    op: &SourceOp,
    page: usize,
    cx: &OpContext<VertexOp>,
) -> Result<CacheMap<VertexOp>> {
    let identifier = Identifier::parse(op, vertex.platform())?;
    let found = vertex.source().found();
    if let (true, Some(Found::Image(image))) = (page > 0, &found) {
        return Ok(CacheMap::new(solver_digest(image.content_key().unwrap_or_else(|| image.manifest_key()))));
    }
    let (worker, sessions, build) = (vertex.worker(), sessions_of(cx), first_build(cx)?);
    let progress = cx.progress();
    let (key, pin, found) = match &identifier {
        Identifier::Image(id) => {
            let image = worker.resolve_image(id, &build, &sessions, Some(&progress)).await?;
            let (key, pin) = (image.manifest_key(), image.root.digest.to_string());
            (Key::Pages(key), pin, Some(Found::Image(image.into())))
        }
        Identifier::OciLayout(id) => {
            let image = worker.resolve_layout(id, &sessions).await?;
            let (key, pin) = (image.manifest_key(), image.root.digest.to_string());
            (Key::Pages(key), pin, Some(Found::Image(image.into())))
        }
        Identifier::Local(id) => {
            let key = id.key(sessions.ids().first().map_or("", |id| id.as_str()))?;
            (Key::ThisBuild(key), digest_of(key).to_string(), None)
        }
        Identifier::Git(id) => {
            let resolved = worker.resolve_git(id, &build, &sessions, &progress).await?;
            let (key, pin) = (id.key(&resolved), resolved.checksum.clone());
            (Key::One(key), pin, Some(Found::Git(resolved.into())))
        }
        Identifier::Http(id) => {
            let file = worker.resolve_http(id, &build, &sessions, &progress).await?;
            let (key, pin) = (id.key(&file), file.digest().to_string());
            (Key::One(key), pin, Some(Found::Http(file.into())))
        }
        Identifier::Blob(id) => (Key::One(id.key()), id.digest.to_string(), None),
    };
    let pin = SourcePin { identifier, pin, platform: vertex.platform().clone() };
    vertex.source().set(pin, found);
    let digest = match key {
        Key::Pages(key) => {
            return Ok(CacheMap { done: false, ..CacheMap::new(source_digest(key)) });
        }
        Key::One(key) => source_digest(key),
        // What a client has now, no other build can know.
        Key::ThisBuild(key) => Digest::new(format!("random:{}", digest_of(key).hex())),
    };
    Ok(CacheMap::new(digest))
}

enum Key {
    One(Hash),
    /// Further pages may follow.
    Pages(Hash),
    /// Not to be found by others.
    ThisBuild(Hash),
}

fn source_digest(key: Hash) -> Digest {
    let mut encoder = Encoder::new("kiln.op.source.v1");
    encoder.hash(&key);
    solver_digest(encoder.finish())
}

pub async fn execute(vertex: &VertexOp, op: &SourceOp, cx: &OpContext<VertexOp>) -> Result<Ref> {
    let (worker, sessions, build) = (vertex.worker(), sessions_of(cx), first_build(cx)?);
    let progress = cx.progress();
    if vertex.source().pin().is_none() {
        // It runs without having been looked up, as when caches are ignored.
        cache_map(vertex, op, 0, cx).await?;
    }
    let identifier = Identifier::parse(op, vertex.platform())?;
    match (&identifier, vertex.source().found()) {
        (Identifier::Image(id), Some(Found::Image(image))) => worker.image_ref(&image, &id.record_type),
        (Identifier::OciLayout(_), Some(Found::Image(image))) => worker.image_ref(&image, ""),
        (Identifier::Local(id), _) => worker.receive_local(id, &sessions, &progress).await,
        (Identifier::Git(id), Some(Found::Git(resolved))) => {
            worker.checkout_git(id, &resolved, &sessions, &progress).await
        }
        (Identifier::Http(id), Some(Found::Http(file))) => {
            worker.http_ref(id, &file, &build, &sessions, &progress).await
        }
        (Identifier::Blob(id), _) => worker.blob_ref(id, &sessions, &progress).await,
        _ => Err(Error::Text(format!("source {} was not resolved", op.identifier))),
    }
}
