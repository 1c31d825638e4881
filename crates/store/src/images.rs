//! The local image store: the image layout's `index.json`.
//!
//! Each name is one descriptor (of a manifest, or of the index of a multi-platform image) annotated with the full
//! reference, in `io.containerd.image.name` as other tools write it and in `org.opencontainers.image.ref.name`, so
//! that `skopeo inspect oci:<root>/content:<name>` finds it.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Mutex;

use kiln_oci::{Descriptor, Digest, Index, annotations, media_type};

use crate::content::{Content, FILE_MODE};
use crate::error::{Error, Result};

/// A named image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The full reference, as `docker.io/library/alpine:latest`.
    pub name: String,
    /// Its manifest or index, without the annotations that hold the name.
    pub target: Descriptor,
}

/// The named images of a store.
#[derive(Debug)]
pub struct Images {
    content: Content,
    lock: Mutex<()>,
}

impl Images {
    pub(crate) fn new(content: Content) -> Self {
        Self { content, lock: Mutex::default() }
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut images: Vec<Image> = self.read()?.manifests.into_iter().filter_map(image).collect();
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// An image by its full reference.
    pub fn get(&self, name: &str) -> Result<Option<Image>> {
        Ok(self.read()?.manifests.into_iter().filter_map(image).find(|image| image.name == name))
    }

    /// Gives an image a name; another that had it loses it. All of the image's own blobs must be there.
    pub fn put(&self, name: &str, target: &Descriptor) -> Result<()> {
        if !self.content.has(&target.digest) {
            return Err(Error::BlobNotFound(target.digest.clone()));
        }
        self.change(|index| {
            index.manifests.retain(|descriptor| name_of(descriptor) != Some(name));
            let named = target
                .clone()
                .with_annotation(annotations::CONTAINERD_IMAGE_NAME, name)
                .with_annotation(annotations::REF_NAME, name);
            index.manifests.push(named);
            Ok(())
        })
    }

    /// Gives the image `from` one more name.
    pub fn tag(&self, from: &str, to: &str) -> Result<()> {
        let image = self.get(from)?.ok_or_else(|| Error::ImageNotFound(from.to_owned()))?;
        self.put(to, &image.target)
    }

    /// Takes a name away. The blobs go with the next prune, if nothing else refers to them.
    pub fn remove(&self, name: &str) -> Result<Image> {
        let image = self.get(name)?.ok_or_else(|| Error::ImageNotFound(name.to_owned()))?;
        self.change(|index| {
            index.manifests.retain(|descriptor| name_of(descriptor) != Some(name));
            Ok(())
        })?;
        Ok(image)
    }

    /// Every blob that a named image is made of.
    pub(crate) fn blobs(&self) -> Result<HashSet<Digest>> {
        let mut found = HashSet::new();
        for descriptor in self.read()?.manifests {
            self.content.reachable(&descriptor.digest, &descriptor.media_type, &mut found)?;
        }
        Ok(found)
    }

    fn path(&self) -> PathBuf {
        self.content.layout().join("index.json")
    }

    fn read(&self) -> Result<Index> {
        let path = self.path();
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| Error::ImageIndex { path: path.clone(), source }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Index::new(media_type::OCI_INDEX, Vec::new()))
            }
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Reads, changes and replaces the index. Its blobs' names are durable before it refers to them.
    fn change(&self, change: impl FnOnce(&mut Index) -> Result<()>) -> Result<()> {
        let _lock = self.lock.lock().unwrap_or_else(|poison| poison.into_inner());
        let mut index = self.read()?;
        change(&mut index)?;
        let path = self.path();
        let bytes =
            serde_json::to_vec(&index).map_err(|source| Error::ImageIndex { path: path.clone(), source })?;
        let blobs = self.content.layout().join("blobs/sha256");
        let sync_dir = |dir: &std::path::Path| {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
        };
        sync_dir(&blobs)?;
        let mut new = self.path();
        new.set_extension("json.new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&new)
            .map_err(Error::io("create", &new))?;
        file.write_all(&bytes).map_err(Error::io("write", &new))?;
        file.sync_data().map_err(Error::io("sync", &new))?;
        std::fs::rename(&new, &path).map_err(Error::io("rename", &new))?;
        sync_dir(self.content.layout())
    }

    /// Makes sure that the file is there: a layout without it is none.
    pub(crate) fn prepare(&self) -> Result<()> {
        if self.path().exists() { Ok(()) } else { self.change(|_| Ok(())) }
    }
}

fn name_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor
        .annotation(annotations::CONTAINERD_IMAGE_NAME)
        .or_else(|| descriptor.annotation(annotations::REF_NAME))
}

fn image(mut descriptor: Descriptor) -> Option<Image> {
    let name = name_of(&descriptor)?.to_owned();
    descriptor.annotations.remove(annotations::CONTAINERD_IMAGE_NAME);
    descriptor.annotations.remove(annotations::REF_NAME);
    Some(Image { name, target: descriptor })
}
