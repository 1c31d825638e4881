//! Checks that need nothing but the instructions. Those that need values are made where the values are.

use super::{Linter, Rule};
use crate::ignore::{has_exceptions, ignores_everything};
use crate::instruction::Stage;
use crate::location::Range;
use crate::path::clean;
use crate::values::quote;

const RESERVED_STAGE_NAMES: [&str; 2] = ["context", "scratch"];

/// Parts of names, between underscores, that hint at a secret.
const SECRET_WORDS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Parts of names that tell that there is none after all.
const HARMLESS_WORDS: [&str; 3] = ["public", "file", "version"];

/// The last comment above a definition has to begin with what is defined.
pub(crate) fn check_description(
    keyword: &str,
    names: &[&str],
    comments: &[String],
    location: &[Range],
    lint: &Linter,
) {
    let (Some(comment), Some(first)) = (comments.last(), names.first()) else { return };
    if names.contains(&comment.split(' ').next().unwrap_or_default()) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    let detail = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    lint.report(Rule::InvalidDefinitionDescription, location, detail);
}

/// Names of stages are unique and not reserved.
pub(crate) fn check_stage_names(stages: &[Stage], lint: &Linter) {
    for (at, Stage { name, location, .. }) in stages.iter().enumerate() {
        if name.is_empty() {
            continue;
        }
        if RESERVED_STAGE_NAMES.contains(&name.as_str()) {
            let detail = format!("Stage name should not use the same name as reserved stage {}", quote(name));
            lint.report(Rule::ReservedStageName, location, detail);
        }
        if stages[..at].iter().any(|earlier| earlier.name == *name) {
            let detail = format!("Duplicate stage name {}, stage names should be unique", quote(name));
            lint.report(Rule::DuplicateStageName, location, detail);
        }
    }
}

/// All keywords are written in the case of the majority.
pub(crate) fn check_command_casing(stages: &[Stage], lint: &Linter) {
    let keywords = || {
        stages.iter().flat_map(|stage| {
            let commands = stage.commands.iter().map(|command| (&command.keyword, &command.location));
            std::iter::once((&stage.keyword, &stage.location)).chain(commands)
        })
    };
    let is_lower = |word: &String| *word == word.to_lowercase();
    let is_upper = |word: &String| *word == word.to_uppercase();
    let lower = keywords().filter(|(word, _)| is_lower(word)).count();
    let upper = keywords().filter(|(word, _)| is_upper(word) && !is_lower(word)).count();
    let majority_is_lower = lower > upper;
    for (word, location) in keywords() {
        let casing = match majority_is_lower {
            true if !is_lower(word) => "lowercase",
            false if !is_upper(word) => "uppercase",
            _ => continue,
        };
        let detail = format!("Command '{word}' should match the case of the command majority ({casing})");
        lint.report(Rule::ConsistentInstructionCasing, location, detail);
    }
}

/// A variable whose name sounds like a secret does not belong into `ARG` and `ENV`.
pub(crate) fn check_secret_key(keyword: &str, key: &str, location: &[Range], lint: &Linter) {
    let has_word_of = |words: &[&str]| key.to_lowercase().split('_').any(|word| words.contains(&word));
    if has_word_of(&SECRET_WORDS) && !has_word_of(&HARMLESS_WORDS) {
        let detail =
            format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {})", quote(key));
        lint.report(Rule::SecretsUsedInArgOrEnv, location, detail);
    }
}

/// A source in the context is not ignored. Says nothing if the ignore file has exceptions: a folder may
/// be ignored and a file in it not. `is_ignored` tells whether a path or one of its folders matches.
pub(crate) fn check_copy_source(
    verb: &str,
    source: &str,
    patterns: &[String],
    is_ignored: &dyn Fn(&str) -> bool,
    location: &[Range],
    lint: &Linter,
) {
    if patterns.is_empty() || has_exceptions(patterns) {
        return;
    }
    let source = clean(source);
    // The root itself is only ever ignored by a pattern for everything.
    let is_root = source == "." || source == "/";
    if (is_root && !ignores_everything(patterns)) || !is_ignored(&source) {
        return;
    }
    let detail = format!("Attempting to {verb} file {} that is excluded by .dockerignore", quote(&source));
    lint.report(Rule::CopyIgnoredFile, location, detail);
}
