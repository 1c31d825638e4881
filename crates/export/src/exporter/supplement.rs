//! Lists of software that also say in which layer of the image each file came.

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};

use kiln_layer::union::Union;
use kiln_oci::Digest;
use kiln_remotecache::report::Downloads;
use kiln_store::Ref;
use serde_json::{Map, Value, json};

use super::attestations::ReadAttestation;
use super::layers::ExportLayer;
use super::{ExportBuild, Exporters, store_failed};
use crate::error::ExportError;

/// The type of the lists that are understood.
const SPDX: &str = "https://spdx.dev/Document";

/// Adds layers to the main list of software. Lists that cannot be read are left as they are.
pub(super) async fn supplement(
    exporters: &Exporters,
    build: &ExportBuild,
    reference: Option<&Ref>,
    layers: &[ExportLayer],
    all: &mut [ReadAttestation],
) -> Result<(), ExportError> {
    let Some(reference) = reference else { return Ok(()) };
    for one in all.iter_mut().filter(|one| one.is_core && one.predicate_type == SPDX) {
        let Ok(mut document) = serde_json::from_slice::<Map<String, Value>>(&one.predicate) else { continue };
        let wanted = files_without_comment(&document);
        let found = match wanted.is_empty() {
            true => HashMap::new(),
            false => find(exporters, build, reference, layers, wanted).await?,
        };
        comment(&mut document, &found);
        sign(&mut document);
        let json = kiln_oci::gojson::to_vec(&document)
            .map_err(|source| ExportError::Json { what: "list of software", source })?;
        one.predicate = json.into();
    }
    Ok(())
}

fn path_of(file: &Value) -> Option<PathBuf> {
    let name = file.get("fileName")?.as_str()?;
    let parts = Path::new(name).components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    Some(parts.collect())
}

fn has_comment(file: &Value) -> bool {
    file.get("comment").and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}

fn files_without_comment(document: &Map<String, Value>) -> BTreeSet<PathBuf> {
    let files = document.get("files").and_then(Value::as_array).into_iter().flatten();
    files.filter(|file| !has_comment(file)).filter_map(path_of).collect()
}

fn comment(document: &mut Map<String, Value>, found: &HashMap<PathBuf, Digest>) {
    let files = document.get_mut("files").and_then(Value::as_array_mut).into_iter().flatten();
    for file in files.filter(|file| !has_comment(file)) {
        let layer = path_of(file).and_then(|path| found.get(&path));
        if let (Some(layer), Some(file)) = (layer, file.as_object_mut()) {
            file.insert("comment".to_owned(), format!("layerID: {layer}").into());
        }
    }
}

/// Says who had a hand in the list too.
fn sign(document: &mut Map<String, Value>) {
    let tool = format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"));
    let info = document.entry("creationInfo").or_insert_with(|| json!({}));
    if let Some(info) = info.as_object_mut() {
        let creators = info.entry("creators").or_insert_with(|| json!([]));
        if let Some(creators) = creators.as_array_mut() {
            creators.push(tool.into());
        }
    }
}

/// The topmost layer that has each file.
async fn find(
    exporters: &Exporters,
    build: &ExportBuild,
    reference: &Ref,
    layers: &[ExportLayer],
    mut wanted: BTreeSet<PathBuf>,
) -> Result<HashMap<PathBuf, Digest>, ExportError> {
    let failed = || store_failed("failed to read the layers of the result");
    let store = exporters.store.clone();
    store.ensure_unpacked(reference, &Downloads(build.reporter.clone())).await.map_err(failed())?;
    let layers = layers.to_vec();
    let pool = exporters.store.pool();
    let search = move || {
        let mut found = HashMap::new();
        for layer in layers.iter().rev() {
            if wanted.is_empty() {
                break;
            }
            let alone = store.append(&Ref::scratch(), &layer.handle).map_err(failed())?;
            let union = store.union(&alone).map_err(failed())?;
            for path in present(&union, &wanted)? {
                wanted.remove(&path);
                found.insert(path, layer.layer.descriptor.digest.clone());
            }
        }
        Ok(found)
    };
    pool.run(search).await.map_err(failed())?
}

fn present(union: &Union, wanted: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, ExportError> {
    let failed = |error| ExportError::failed("failed to read the layers of the result", error);
    let mut present = Vec::new();
    for path in wanted {
        if union.lookup(path).map_err(failed)?.is_some() {
            present.push(path.clone());
        }
    }
    Ok(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_their_layers() {
        let text =
            r#"{"files":[{"fileName":"/foo"},{"fileName":"bar","comment":"mine"},{"fileName":"./x/y"}]}"#;
        let mut document: Map<String, Value> = serde_json::from_str(text).unwrap();
        let wanted = files_without_comment(&document);
        assert_eq!(wanted.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["foo", "x/y"]);
        let layer = Digest::sha256_of("layer");
        comment(&mut document, &[(PathBuf::from("foo"), layer.clone())].into());
        sign(&mut document);
        assert_eq!(document["files"][0]["comment"], format!("layerID: {layer}"));
        assert_eq!(document["files"][1]["comment"], "mine");
        assert!(document["files"][2].get("comment").is_none());
        assert!(document["creationInfo"]["creators"][0].as_str().unwrap().starts_with("Tool: kiln-"));
    }
}
