//! `--platform`.

use kiln_oci::Platform;

use crate::error::{Error, Result};

/// Reads lists such as `linux/amd64,linux/arm64`; `local` is this machine's. Repeats are dropped, order is kept.
pub fn platforms(values: &[String]) -> Result<Vec<Platform>> {
    let mut found = Vec::new();
    for text in values.iter().flat_map(|value| value.split(',')) {
        let text = text.trim();
        let platform = match text {
            "local" => kiln_oci::platform::default_for_host(),
            _ => Platform::parse(text).map_err(|error| Error::user(error.to_string()))?,
        };
        let platform = platform.normalized();
        if !found.contains(&platform) {
            found.push(platform);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_aliases() {
        let values = ["linux/x86_64,linux/arm64/v8".to_owned(), "linux/amd64, linux/arm/v7".to_owned()];
        let found: Vec<String> = platforms(&values).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["linux/amd64", "linux/arm64", "linux/arm/v7"]);
        assert_eq!(platforms(&["local".into()]).unwrap().len(), 1);
        assert!(platforms(&["a/b/c/d".into()]).is_err());
        assert!(platforms(&[String::new()]).is_err());
    }
}
