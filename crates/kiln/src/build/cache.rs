//! Caches to read and to write: what the client adds to the flags, and the folders that it lends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use kiln_proto::control::{CacheOptions, CacheOptionsEntry};
use serde_json::{Value, json};

use super::oci_index::{self, Name};
use crate::error::{Context as _, Error, Result};
use crate::flags::{self, CacheEntry};
use crate::settings::Settings;

/// A folder that a cache is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalExport {
    /// The folder.
    pub dir: PathBuf,
    /// What the cache is called in its index.
    pub tag: String,
}

/// Caches of one build.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// For the request.
    pub options: CacheOptions,
    /// For the frontend, which reads imports for itself.
    pub frontend_attr: Option<String>,
    /// Folders by store id, and whether the daemon may write to them.
    pub stores: BTreeMap<String, (PathBuf, bool)>,
    /// Folders whose index gets an entry when the build has succeeded.
    pub exports: Vec<LocalExport>,
    /// Imports that are left out, and why.
    pub warnings: Vec<String>,
}

impl Caches {
    /// Completes the flags' entries.
    pub fn resolve(
        from: &[CacheEntry],
        to: &[CacheEntry],
        inline: bool,
        settings: &Settings,
    ) -> Result<Self> {
        let mut caches = Self::default();
        for entry in from {
            let mut entry = entry.clone();
            add_credentials(&mut entry, settings);
            if !is_active(&entry) {
                continue;
            }
            if entry.kind == "local" && !caches.add_local_import(&mut entry)? {
                continue;
            }
            if entry.kind == "registry" && !entry.attrs.contains_key("ref") {
                return Err(Error::user("registry cache importer requires ref"));
            }
            caches.options.imports.push(wire(entry));
        }
        let inline = inline.then(|| CacheEntry { kind: "inline".to_owned(), attrs: BTreeMap::new() });
        for entry in to.iter().chain(&inline) {
            let mut entry = entry.clone();
            add_credentials(&mut entry, settings);
            if !is_active(&entry) {
                continue;
            }
            match entry.kind.as_str() {
                "local" => caches.add_local_export(&entry)?,
                "registry" if !entry.attrs.contains_key("ref") => {
                    return Err(Error::user("registry cache exporter requires ref"));
                }
                _ => {}
            }
            caches.options.exports.push(wire(entry));
        }
        if !caches.options.imports.is_empty() {
            let list: Vec<Value> = caches
                .options
                .imports
                .iter()
                .map(|entry| json!({"Type": entry.r#type, "Attrs": entry.attrs}))
                .collect();
            caches.frontend_attr = Some(Value::Array(list).to_string());
        }
        Ok(caches)
    }

    /// A local import that is not there is a cache miss, not a failure.
    fn add_local_import(&mut self, entry: &mut CacheEntry) -> Result<bool> {
        let dir = entry.attrs.get("src").filter(|dir| !dir.is_empty()).cloned();
        let dir = dir.ok_or_else(|| Error::user("local cache importer requires src"))?;
        let path = absolute(&dir)?;
        let digest = match entry.attrs.get("digest") {
            Some(digest) => Digest::parse(digest)
                .map_err(|error| Error::user(error.to_string()).in_context("cache-from"))?,
            None => {
                let tag = entry.attrs.get("tag").map_or("latest", String::as_str);
                match oci_index::find(&path, tag) {
                    Ok(Some(digest)) => digest,
                    Ok(None) => {
                        self.warnings.push(format!(
                            "local cache import at {dir} skipped: no digest found for tag {tag}"
                        ));
                        return Ok(false);
                    }
                    Err(error) => {
                        self.warnings
                            .push(format!("local cache import at {dir} skipped due to err: {error}"));
                        return Ok(false);
                    }
                }
            }
        };
        entry.attrs.insert("digest".to_owned(), digest.to_string());
        self.stores.entry(format!("local:{dir}")).or_insert((path, false));
        Ok(true)
    }

    fn add_local_export(&mut self, entry: &CacheEntry) -> Result<()> {
        let dir = entry.attrs.get("dest").filter(|dir| !dir.is_empty());
        let dir = dir.ok_or_else(|| Error::user("local cache exporter requires dest"))?;
        if entry.attrs.get("reset").is_some_and(|reset| flags::boolean(reset) != Some(false)) {
            return Err(Error::not_yet("--cache-to type=local,reset=true"));
        }
        let path = absolute(dir)?;
        std::fs::create_dir_all(&path).when(format!("create the cache folder `{dir}`"))?;
        self.stores.insert(format!("local:{dir}"), (path.clone(), true));
        let tag = entry.attrs.get("tag").cloned().unwrap_or_else(|| "latest".to_owned());
        self.exports.push(LocalExport { dir: path, tag });
        Ok(())
    }

    /// Enters what was written into the folders' indexes.
    pub fn finish(&self, response: &BTreeMap<String, String>) -> Result<()> {
        let Some(manifest) = response.get("cache.manifest") else { return Ok(()) };
        let descriptor: Value =
            serde_json::from_str(manifest).when("understand the daemon's answer about the cache")?;
        for export in &self.exports {
            oci_index::put(&export.dir, &descriptor, &[Name::Tag(export.tag.clone())])?;
        }
        Ok(())
    }
}

fn absolute(dir: &str) -> Result<PathBuf> {
    std::path::absolute(Path::new(dir)).when(format!("use the cache folder `{dir}`"))
}

fn wire(entry: CacheEntry) -> CacheOptionsEntry {
    CacheOptionsEntry { r#type: entry.kind, attrs: entry.attrs.into_iter().collect() }
}

/// What GitHub Actions and AWS tools keep in the environment.
fn add_credentials(entry: &mut CacheEntry, settings: &Settings) {
    let mut add = |key: &str, variable: &str| {
        if let (false, Some(value)) = (entry.attrs.contains_key(key), settings.var(variable)) {
            entry.attrs.insert(key.to_owned(), value);
        }
    };
    match entry.kind.as_str() {
        "gha" => {
            add("token", "ACTIONS_RUNTIME_TOKEN");
            if settings.flag("ACTIONS_CACHE_SERVICE_V2") == Some(true) {
                add("url_v2", "ACTIONS_RESULTS_URL");
            }
            add("url", "ACTIONS_CACHE_URL");
            add("url", "ACTIONS_RESULTS_URL");
        }
        "s3" if !(entry.attrs.contains_key("access_key_id")
            && entry.attrs.contains_key("secret_access_key")) =>
        {
            let mut add = |key: &str, variable: &str| {
                if let (false, Some(value)) = (entry.attrs.contains_key(key), settings.var(variable)) {
                    entry.attrs.insert(key.to_owned(), value);
                }
            };
            add("access_key_id", "AWS_ACCESS_KEY_ID");
            add("secret_access_key", "AWS_SECRET_ACCESS_KEY");
            add("session_token", "AWS_SESSION_TOKEN");
        }
        _ => {}
    }
}

/// A cache of GitHub Actions outside of them is left out.
fn is_active(entry: &CacheEntry) -> bool {
    let has = |key: &str| entry.attrs.get(key).is_some_and(|value| !value.is_empty());
    entry.kind != "gha" || has("token") && (has("url") || has("url_v2"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn entries(values: &[&str]) -> Vec<CacheEntry> {
        flags::cache_entries(&values.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn local_caches_are_lent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let digest = Digest::sha256_of("m");
        let to = entries(&[&format!("type=local,dest={path}/c,tag=t")]);
        let caches = Caches::resolve(&[], &to, false, &settings(&[])).unwrap();
        assert_eq!(caches.stores[&format!("local:{path}/c")], (dir.path().join("c"), true));
        let manifest = json!({"mediaType": "m", "digest": digest.to_string(), "size": 1}).to_string();
        caches.finish(&BTreeMap::from([("cache.manifest".to_owned(), manifest)])).unwrap();

        let from =
            entries(&[&format!("type=local,src={path}/c,tag=t"), &format!("type=local,src={path}/gone")]);
        let caches = Caches::resolve(&from, &[], false, &settings(&[])).unwrap();
        assert_eq!(caches.options.imports.len(), 1);
        assert_eq!(caches.options.imports[0].attrs["digest"], digest.to_string());
        assert_eq!(caches.warnings.len(), 1);
        let attr: Value = serde_json::from_str(&caches.frontend_attr.unwrap()).unwrap();
        assert_eq!(attr[0]["Type"], "local");
    }

    #[test]
    fn actions_caches_work_in_actions_only() {
        let to = entries(&["type=gha"]);
        assert!(Caches::resolve(&[], &to, false, &settings(&[])).unwrap().options.exports.is_empty());
        let inside = settings(&[("ACTIONS_RUNTIME_TOKEN", "t"), ("ACTIONS_RESULTS_URL", "u")]);
        let caches = Caches::resolve(&[], &to, true, &inside).unwrap();
        assert_eq!(caches.options.exports.len(), 2);
        assert_eq!(caches.options.exports[0].attrs["url"], "u");
        assert_eq!(caches.options.exports[1].r#type, "inline");
    }

    #[test]
    fn what_is_missing_is_told() {
        for (from, to) in [
            (&["type=local"] as &[&str], &[] as &[&str]),
            (&["type=registry,a=b"], &[]),
            (&[], &["type=local"]),
            (&[], &["type=registry,a=b"]),
            (&[], &["type=local,dest=x,reset=true"]),
        ] {
            assert!(
                Caches::resolve(&entries(from), &entries(to), false, &settings(&[])).is_err(),
                "{from:?} {to:?}"
            );
        }
    }
}
