//! The history of an image: what made it, step by step.

use crate::instruction::ArgDefinition;
use crate::shell::Env;
use kiln_oci::{History, Image, Timestamp};

const COMMENT: &str = "buildkit.dockerfile.v0";

/// What an entry stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// Only the config changed.
    None,
    /// There is a layer with the same order.
    Plain,
    /// There is one, made by a step of the build.
    Built,
}

/// Adds an entry.
pub(super) fn commit(image: &mut Image, message: &str, layer: Layer, created: Option<Timestamp>) {
    let mark = if layer == Layer::Built { " # buildkit" } else { "" };
    image.history.push(History {
        created,
        created_by: format!("{message}{mark}"),
        comment: COMMENT.to_owned(),
        empty_layer: layer == Layer::None,
        ..History::default()
    });
}

/// A command line with the arguments of the build that it could see in front of it.
pub(super) fn run_command(args: &[String], build_args: &[ArgDefinition], env: &dyn Env) -> String {
    let mut seen: Vec<&str> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for ArgDefinition { key, value, .. } in build_args {
        let value = env.get(key).or(value.as_deref()).unwrap_or_default();
        let word = format!("{key}={value}");
        match seen.iter().position(|known| known == key) {
            Some(at) => words[at] = word,
            None => {
                seen.push(key);
                words.push(word);
            }
        }
    }
    if !words.is_empty() {
        words.insert(0, format!("|{}", words.len()));
    }
    words.extend(args.iter().cloned());
    words.join(" ")
}
