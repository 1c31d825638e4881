//! Documents agree with the tree: the links in Markdown files lead somewhere, and each crate is on the map.

use std::path::Path;

pub fn check(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let files = crate::tracked_files(root)?;
    for name in files.iter().filter(|name| name.ends_with(".md")) {
        let text = std::fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"))?;
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        for link in relative_links(&text) {
            if !root.join(folder).join(link).exists() {
                found.push(format!("{name} links to {link}, which is not there"));
            }
        }
    }
    let map = std::fs::read_to_string(root.join("ARCHITECTURE.md"))
        .map_err(|error| format!("ARCHITECTURE.md: {error}"))?;
    for name in files.iter().filter_map(|name| name.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")) {
        if !map.contains(&format!("`{name}`")) {
            found.push(format!("crates/{name} is missing from ARCHITECTURE.md"));
        }
    }
    Ok(found)
}

/// The targets of `[text](target)` that are neither an address nor a place in the same page, without their `#` part.
fn relative_links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?.trim();
        let outside = target.contains("://") || target.starts_with("mailto:");
        (!target.is_empty() && !outside && !target.contains(char::is_whitespace)).then_some(target)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_links_into_the_tree_only() {
        let text = "[a](b/c.md#part) [d](https://e.example/f) [g](#h) ![i](j.svg)";
        assert_eq!(super::relative_links(text).collect::<Vec<_>>(), ["b/c.md", "j.svg"]);
    }
}
