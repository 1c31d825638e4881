//! Whether a result is for the platforms that were asked for.

use std::collections::BTreeSet;

use kiln_oci::{Platform, platform};

use crate::error::ExportError;
use crate::source::{PLATFORMS_KEY, Source};

/// What a user should know about the platforms of a result; `asked` is the frontend option `platform`.
///
/// # Errors
/// Results of several platforms without their names.
pub fn platform_warnings<R>(source: &Source<R>, asked: Option<&str>) -> Result<Vec<String>, ExportError> {
    if !source.metadata.contains_key(PLATFORMS_KEY) {
        if source.is_map() {
            let text = "build result contains multiple refs without platforms mapping";
            return Err(ExportError::Result(text.to_owned()));
        }
        if source.reference.is_none() {
            return Ok(Vec::new());
        }
    }
    let made: Vec<Platform> =
        source.platforms()?.platforms.into_iter().map(|one| one.platform.normalized()).collect();
    let host = platform::default_for_host().to_string();
    let names: Vec<&str> = asked.unwrap_or(&host).split(',').collect();
    let mut warnings = Vec::new();
    let mut wanted: Vec<Platform> = Vec::new();
    for name in &names {
        match Platform::parse(name).map(|platform| platform.normalized()) {
            Ok(platform) if wanted.contains(&platform) => {
                warnings.push(format!("Duplicate platform result requested {name:?}"));
            }
            Ok(platform) => wanted.push(platform),
            Err(error) => warnings.push(format!("Invalid platform result requested {name:?}: {error}")),
        }
    }
    if !warnings.is_empty() {
        return Ok(warnings);
    }
    if let ([wanted], [made]) = (wanted.as_slice(), made.as_slice()) {
        // Versions of systems are seldom asked for.
        let same = wanted == made
            || (wanted.os_version.is_empty()
                && *wanted == Platform { os_version: String::new(), ..made.clone() });
        if !same {
            warnings.push(format!(
                "Requested platform {:?} does not match result platform {:?}",
                names[0],
                made.to_string()
            ));
        }
    } else if !source.is_map() && wanted.len() > 1 {
        warnings.push("Multiple platforms requested but result is not multi-platform".to_owned());
    } else if wanted.len() != made.len() || made.iter().any(|platform| !wanted.contains(platform)) {
        warnings.push(format!(
            "Requested platforms {} do not match result platforms {}",
            joined(&wanted),
            joined(&made)
        ));
    }
    Ok(warnings)
}

fn joined(platforms: &[Platform]) -> String {
    let sorted: BTreeSet<String> = platforms.iter().map(Platform::to_string).collect();
    sorted.into_iter().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(made: &[&str], map: bool, asked: &str) -> Vec<String> {
        let list: Vec<String> = made
            .iter()
            .map(|name| {
                let (os, architecture) = name.split_once('/').unwrap();
                format!(r#"{{"ID":"{name}","Platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#)
            })
            .collect();
        let json = format!(r#"{{"Platforms":[{}]}}"#, list.join(","));
        let mut source = Source::<()> { reference: Some(()), ..Source::default() };
        source.metadata.insert(PLATFORMS_KEY.to_owned(), json.into());
        if map {
            source.refs = made.iter().map(|name| ((*name).to_owned(), Some(()))).collect();
        }
        platform_warnings(&source, Some(asked)).unwrap()
    }

    #[test]
    fn results_are_held_against_what_was_asked_for() {
        let none: [&str; 0] = [];
        assert_eq!(warnings(&["linux/amd64"], false, "linux/amd64"), none);
        assert_eq!(warnings(&["linux/amd64", "linux/arm64"], true, "linux/arm64,linux/amd64"), none);
        assert_eq!(
            warnings(&["linux/amd64"], false, "linux/arm64"),
            [r#"Requested platform "linux/arm64" does not match result platform "linux/amd64""#]
        );
        assert_eq!(
            warnings(&["linux/amd64"], false, "linux/arm64,linux/amd64"),
            ["Multiple platforms requested but result is not multi-platform"]
        );
        assert_eq!(
            warnings(&["linux/amd64", "linux/arm64"], true, "linux/arm64,linux/s390x"),
            [
                "Requested platforms linux/arm64,linux/s390x do not match result platforms linux/amd64,linux/arm64"
            ]
        );
        assert_eq!(
            warnings(&["linux/amd64"], false, "linux/amd64,linux/x86_64"),
            [r#"Duplicate platform result requested "linux/x86_64""#]
        );
    }
}
