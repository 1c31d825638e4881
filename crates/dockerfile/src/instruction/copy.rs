//! `COPY` and `ADD`.

use super::InstructionError;
use super::flags::{FlagKind, Flags};
use crate::error::Error;
use crate::parser::{Heredoc, Statement, chomped};

/// What is copied where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    pub paths: Vec<String>,
    /// Files given as heredocs.
    pub inline: Vec<InlineFile>,
    pub destination: String,
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineFile {
    /// The word of the heredoc, which is the file's name.
    pub path: String,
    pub data: String,
    /// Variables in it are expanded.
    pub expand: bool,
}

/// `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub sources: Sources,
    /// Stage, image or context; empty for the main context.
    pub from: String,
    pub chown: String,
    pub chmod: String,
    pub link: bool,
    /// The folders of the sources are kept.
    pub parents: bool,
    pub exclude: Vec<String>,
}

/// `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    pub sources: Sources,
    pub chown: String,
    pub chmod: String,
    pub link: bool,
    pub exclude: Vec<String>,
    pub keep_git_dir: Option<bool>,
    pub checksum: String,
    /// Whether archives are unpacked; by default local ones are, remote ones not.
    pub unpack: Option<bool>,
}

pub(super) fn build_copy(statement: &Statement, words: &[String]) -> Result<Copy, Error> {
    let (paths, destination) = split_destination(words, "COPY")?;
    let known = [
        ("chown", FlagKind::Text),
        ("from", FlagKind::Text),
        ("chmod", FlagKind::Text),
        ("link", FlagKind::Bool),
        ("exclude", FlagKind::Texts),
        ("parents", FlagKind::Bool),
    ];
    let flags = Flags::parse(&statement.flags, &known)?;
    Ok(Copy {
        sources: sources(statement, paths, destination, "COPY")?,
        from: flags.text_or_empty("from"),
        chown: flags.text_or_empty("chown"),
        chmod: flags.text_or_empty("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        exclude: flags.texts("exclude"),
    })
}

pub(super) fn build_add(statement: &Statement, words: &[String]) -> Result<Add, Error> {
    let (paths, destination) = split_destination(words, "ADD")?;
    let known = [
        ("chown", FlagKind::Text),
        ("chmod", FlagKind::Text),
        ("link", FlagKind::Bool),
        ("keep-git-dir", FlagKind::Bool),
        ("checksum", FlagKind::Text),
        ("unpack", FlagKind::Bool),
        ("exclude", FlagKind::Texts),
    ];
    let flags = Flags::parse(&statement.flags, &known)?;
    Ok(Add {
        sources: sources(statement, paths, destination, "ADD")?,
        chown: flags.text_or_empty("chown"),
        chmod: flags.text_or_empty("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags.texts("exclude"),
        keep_git_dir: flags.switch("keep-git-dir"),
        checksum: flags.text_or_empty("checksum"),
        unpack: flags.switch("unpack"),
    })
}

fn split_destination<'a>(
    words: &'a [String],
    keyword: &'static str,
) -> Result<(&'a [String], &'a String), InstructionError> {
    match words.split_last() {
        Some((destination, paths)) if !paths.is_empty() => Ok((paths, destination)),
        _ => Err(InstructionError::NoDestination(keyword)),
    }
}

fn sources(
    statement: &Statement,
    words: &[String],
    destination: &str,
    keyword: &'static str,
) -> Result<Sources, InstructionError> {
    if Heredoc::of_word(destination).is_some() {
        return Err(InstructionError::HeredocDestination(keyword));
    }
    let mut sources = Sources { paths: Vec::new(), inline: Vec::new(), destination: destination.to_owned() };
    for word in words {
        let Some(opened) = Heredoc::of_word(word) else {
            sources.paths.push(word.clone());
            continue;
        };
        let body = statement.heredocs.iter().rev().find(|heredoc| heredoc.name == opened.name);
        let data = body.map(|heredoc| heredoc.content.as_str()).unwrap_or_default();
        let data = if opened.chomp { chomped(data) } else { data.to_owned() };
        sources.inline.push(InlineFile { path: opened.name, data, expand: opened.expand });
    }
    Ok(sources)
}
