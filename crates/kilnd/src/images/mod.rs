//! `kiln.v1.Images`: the image store's own commands, for which BuildKit's API has no call.

mod describe;
mod load;
mod save;
mod transfer;
mod walk;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use kiln_frontend::Error;
use kiln_oci::Reference;
use kiln_proto::images::images_server::Images;
use kiln_proto::images::{
    Chunk, InspectImageRequest, InspectImageResponse, ListImagesRequest, ListImagesResponse,
    LoadImagesRequest, PullImageRequest, PushImageRequest, RemoveImageRequest, RemoveImageResponse,
    SaveImagesRequest, TagImageRequest, TagImageResponse, TransferProgress,
};
use kiln_store::Store;
use tonic::{Request, Response, Status, Streaming};

use crate::daemon::Daemon;

/// The service. Clones share the daemon.
#[derive(Clone)]
pub struct ImageService(pub Arc<Daemon>);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn failed(error: impl std::error::Error + 'static) -> Status {
    Error::of(&error).hint(advice(&error)).to_status()
}

/// What the error, or the deepest cause that knows something, advises.
fn advice(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    error.source().and_then(advice).or_else(|| {
        if let Some(error) = error.downcast_ref::<kiln_registry::RegistryError>() {
            return error.hint();
        }
        error.downcast_ref::<kiln_store::Error>().and_then(kiln_store::Error::hint).map(str::to_owned)
    })
}

/// Reads a name as people write it.
fn full_name(text: &str) -> Result<Reference, Status> {
    Reference::parse(text)
        .map(Reference::with_default_tag)
        .map_err(|error| Status::invalid_argument(format!("invalid reference {text:?}: {error}")))
}

/// A named image, by its full or familiar name, or by its digest.
fn find(store: &Store, text: &str) -> Result<kiln_store::Image, Status> {
    let none = || {
        Status::not_found(format!(
            "no image {text:?} in the image store: `kiln image ls` lists what there is"
        ))
    };
    if text.starts_with("sha256:") {
        let images = store.images().list().map_err(failed)?;
        return images.into_iter().find(|image| image.target.digest.as_str() == text).ok_or_else(none);
    }
    store.images().get(&full_name(text)?.to_string()).map_err(failed)?.ok_or_else(none)
}

#[tonic::async_trait]
impl Images for ImageService {
    type PullStream = Answers<TransferProgress>;
    type PushStream = Answers<TransferProgress>;
    type SaveStream = Answers<Chunk>;
    type LoadStream = Answers<TransferProgress>;

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let store = &self.0.store;
        let wanted = request.into_inner().references;
        let mut images = Vec::new();
        for image in store.images().list().map_err(failed)? {
            let familiar = Reference::parse(&image.name).map(|name| name.familiar()).unwrap_or_default();
            let taken = |text: &String| {
                *text == image.name || *text == familiar || familiar.split(':').next() == Some(text)
            };
            if wanted.is_empty() || wanted.iter().any(taken) {
                images.push(describe::image(store, &image).map_err(failed)?);
            }
        }
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn inspect(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let store = &self.0.store;
        let image = find(store, &request.into_inner().reference)?;
        Ok(Response::new(describe::inspect(store, &image).map_err(failed)?))
    }

    async fn remove(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let store = &self.0.store;
        let image = find(store, &request.into_inner().reference)?;
        store.images().remove(&image.name).map_err(failed)?;
        let store = store.clone();
        let collected = tokio::task::spawn_blocking(move || store.collect_blobs()).await;
        collected.map_err(failed)?.map_err(failed)?;
        Ok(Response::new(RemoveImageResponse { untagged: vec![image.name], deleted: Vec::new() }))
    }

    async fn tag(&self, request: Request<TagImageRequest>) -> Result<Response<TagImageResponse>, Status> {
        let request = request.into_inner();
        let store = &self.0.store;
        let image = find(store, &request.source)?;
        store.images().put(&full_name(&request.target)?.to_string(), &image.target).map_err(failed)?;
        Ok(Response::new(TagImageResponse { target: Some(describe::descriptor(&image.target)) }))
    }

    async fn pull(&self, request: Request<PullImageRequest>) -> Result<Response<Self::PullStream>, Status> {
        Ok(Response::new(transfer::pull(self.0.clone(), request.into_inner())?))
    }

    async fn push(&self, request: Request<PushImageRequest>) -> Result<Response<Self::PushStream>, Status> {
        Ok(Response::new(transfer::push(self.0.clone(), request.into_inner())?))
    }

    async fn save(&self, request: Request<SaveImagesRequest>) -> Result<Response<Self::SaveStream>, Status> {
        Ok(Response::new(save::save(&self.0.store, request.into_inner())?))
    }

    async fn load(
        &self,
        request: Request<Streaming<LoadImagesRequest>>,
    ) -> Result<Response<Self::LoadStream>, Status> {
        let _busy = self.0.activity.begin();
        Ok(Response::new(load::load(self.0.store.clone(), request.into_inner()).await?))
    }
}
