//! What the administrator has provenance tell about the builder: the JSON objects in a folder's files, put together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Names that provenance uses itself.
const BUILT_IN: [&str; 3] = ["buildConfig", "builderPlatform", "platform"];

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{}` cannot be read", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("`{}` holds no JSON object", path.display())]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("key {0:?} is builtin and not allowed to be modified in provenance config")]
    BuiltIn(String),
}

/// Reads the folder; one that is not there is an empty one. Files are taken in the order of their names: what a later one says holds.
///
/// # Errors
/// A file that cannot be read, or says what only the daemon says.
pub fn load(folder: &Path) -> Result<BTreeMap<String, Value>, Error> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| Error::Read { path, source }
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(unreadable(folder))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "json") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    let mut all = BTreeMap::new();
    for path in files {
        let text = std::fs::read(&path).map_err(unreadable(&path))?;
        let told: BTreeMap<String, Value> =
            serde_json::from_slice(&text).map_err(|source| Error::Parse { path, source })?;
        all.extend(told);
    }
    match all.keys().find(|key| BUILT_IN.contains(&key.as_str())) {
        Some(key) => Err(Error::BuiltIn(key.clone())),
        None => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert!(load(&folder.path().join("absent")).unwrap().is_empty());
        write("a.json", r#"{"ci": "one", "n": [1]}"#);
        write("b.json", r#"{"ci": "two"}"#);
        write("c.txt", "no JSON");
        let told = load(folder.path()).unwrap();
        assert_eq!((&told["ci"], &told["n"]), (&Value::from("two"), &serde_json::json!([1])));
        write("d.json", r#"{"platform": "mine"}"#);
        assert!(load(folder.path()).unwrap_err().to_string().starts_with(r#"key "platform" is builtin"#));
    }
}
