//! The layering rule: a crate depends only on crates below it in `docs/layers.toml`.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

#[derive(Deserialize)]
struct Layers {
    order: Vec<String>,
    dev_only: Vec<String>,
    #[serde(default)]
    apart: Vec<Apart>,
}

#[derive(Deserialize)]
struct Apart {
    upper: String,
    lower: String,
    why: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `null` for an ordinary dependency, else `dev` or `build`.
    kind: Option<String>,
    /// Set for a dependency on a crate of this workspace.
    path: Option<String>,
}

pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(root.join("docs/layers.toml")).map_err(|error| error.to_string())?;
    let layers: Layers = toml::from_str(&text).map_err(|error| error.to_string())?;
    let json = crate::output(Command::new(env!("CARGO")).current_dir(root).args([
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
    ]))?;
    let metadata: Metadata = serde_json::from_str(&json).map_err(|error| error.to_string())?;
    Ok(findings(&layers, &metadata))
}

fn findings(layers: &Layers, metadata: &Metadata) -> Vec<String> {
    let rank: HashMap<&str, usize> =
        layers.order.iter().enumerate().map(|(rank, name)| (name.as_str(), rank)).collect();
    let dev_only = |name: &str| layers.dev_only.iter().any(|dev| dev == name);
    let mut found = Vec::new();
    for package in &metadata.packages {
        let own = rank.get(package.name.as_str());
        if own.is_none() && !dev_only(&package.name) {
            found.push(format!("{} is not named in docs/layers.toml", package.name));
            continue;
        }
        for dependency in package.dependencies.iter().filter(|dependency| dependency.path.is_some()) {
            let dev = dependency.kind.as_deref() == Some("dev");
            if dev_only(&dependency.name) {
                if !dev && !dev_only(&package.name) {
                    found.push(format!("{} uses {} outside its tests", package.name, dependency.name));
                }
                continue;
            }
            let upwards = match (own, rank.get(dependency.name.as_str())) {
                (Some(own), Some(other)) => other <= own,
                _ => false,
            };
            if upwards {
                found.push(format!("{} depends upwards on {}", package.name, dependency.name));
            }
            if let Some(apart) = layers
                .apart
                .iter()
                .find(|pair| pair.upper == package.name && pair.lower == dependency.name && !dev)
            {
                found.push(format!("{} must not use {}: {}", package.name, dependency.name, apart.why));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers() -> Layers {
        Layers {
            order: ["top", "middle", "bottom"].map(str::to_owned).to_vec(),
            dev_only: vec!["kit".to_owned()],
            apart: vec![Apart {
                upper: "top".to_owned(),
                lower: "bottom".to_owned(),
                why: "a wall".to_owned(),
            }],
        }
    }

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        let dependencies = dependencies
            .iter()
            .map(|(name, kind)| Dependency {
                name: (*name).to_owned(),
                kind: kind.map(str::to_owned),
                path: Some(String::new()),
            })
            .collect();
        Package { name: name.to_owned(), dependencies }
    }

    #[test]
    fn downwards_is_in_order() {
        let metadata =
            Metadata { packages: vec![package("middle", &[("bottom", None), ("kit", Some("dev"))])] };
        assert!(findings(&layers(), &metadata).is_empty());
    }

    #[test]
    fn each_breach_is_named() {
        let metadata = Metadata {
            packages: vec![
                package("bottom", &[("middle", None)]),
                package("middle", &[("kit", None)]),
                package("top", &[("bottom", None)]),
                package("stray", &[]),
            ],
        };
        let found = findings(&layers(), &metadata);
        assert_eq!(
            found,
            [
                "bottom depends upwards on middle",
                "middle uses kit outside its tests",
                "top must not use bottom: a wall",
                "stray is not named in docs/layers.toml",
            ]
        );
    }
}
