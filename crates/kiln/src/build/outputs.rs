//! Where the result goes: the rules that turn `--output`, `--push`, `--load` and `--tag` into exporters.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_oci::Reference;

use super::options::Options;
use crate::error::{Error, Result};
use crate::flags::{self, Output};
use crate::settings::Settings;

/// An exporter of the daemon, and the end of it on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// `image`, `oci`, …
    pub kind: String,
    /// Its attributes.
    pub attrs: BTreeMap<String, String>,
    /// What comes back.
    pub target: Target,
}

/// What comes back of a result, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing: the daemon keeps it, or sends it elsewhere.
    Nowhere,
    /// A file.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Files of a folder.
    Folder {
        /// The folder.
        path: PathBuf,
        /// Other files in it go.
        delete: bool,
    },
    /// Blobs of a folder that is an OCI image layout.
    Layout(PathBuf),
    /// The Docker Engine.
    Engine,
    /// The image store of the embedded daemon, which is not the builder.
    Store,
}

/// What the rules depend on besides the flags.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// The builder is the embedded daemon.
    pub embedded: bool,
    /// What answers where `--load` would send an image to.
    pub engine: EngineState,
    /// Standard output is a terminal.
    pub stdout_is_terminal: bool,
}

/// What is known of the Docker Engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Nobody answers.
    Absent,
    /// It answers; whether it takes OCI archives.
    Present { takes_oci: bool },
}

/// Whether the Docker Engine has to be looked for.
pub fn wants_engine(options: &Options) -> bool {
    options.call.is_none()
        && (options.load
            || options.outputs.iter().any(|output| output.kind == "docker" && output.dest.is_empty()))
}

/// Applies the rules. Also returns what to warn about.
pub fn exports(
    options: &Options,
    settings: &Settings,
    around: Surroundings,
) -> Result<(Vec<Export>, Option<String>)> {
    if options.call.is_some() {
        return Ok((Vec::new(), None));
    }
    for tag in &options.tags {
        Reference::parse(tag).map_err(|error| Error::user(format!("invalid tag {tag:?}")).because(error))?;
    }
    let mut stdout_used = false;
    let mut found = Vec::new();
    for output in &options.outputs {
        found.push(export(output, around, &mut stdout_used)?);
    }
    if options.push {
        push(&mut found);
    }
    if options.load && !found.iter().any(|export| export.kind == "docker" && export.target == Target::Engine)
    {
        found.push(Export { kind: "docker".to_owned(), attrs: BTreeMap::new(), target: Target::Engine });
    }
    let warning = if found.is_empty() { default_export(options, settings, around, &mut found) } else { None };

    for export in &mut found {
        export.attrs.extend(options.annotations.iter().cloned());
        name(export, &options.tags)?;
        resolve_load(export, options, around)?;
        if let Some(attrs) = options.build_args.get("BUILDKIT_INLINE_BUILDINFO_ATTRS")
            && ["docker", "image", "oci"].contains(&export.kind.as_str())
        {
            export.attrs.insert("buildinfo-attrs".to_owned(), attrs.clone());
        }
        if settings.flag("BUILDX_NO_DEFAULT_OCI_ARTIFACT") == Some(true)
            && ["image", "oci"].contains(&export.kind.as_str())
        {
            export.attrs.entry("oci-artifact".to_owned()).or_insert_with(|| "false".to_owned());
        }
        check_delete(export, options)?;
    }
    found.retain(|export| export.kind != "cacheonly");
    Ok((found, warning))
}

fn export(output: &Output, around: Surroundings, stdout_used: &mut bool) -> Result<Export> {
    let mut attrs = output.attrs.clone();
    let mut kind = output.kind.clone();
    let is_tar = attrs.get("tar").and_then(|value| flags::boolean(value)).unwrap_or(true);
    let target = match kind.as_str() {
        "local" => folder(output)?,
        "tar" => file(output, around, stdout_used)?,
        "docker" if is_tar && output.dest.is_empty() => Target::Engine,
        "oci" | "docker" if is_tar => file(output, around, stdout_used)?,
        "oci" | "docker" => match folder(output)? {
            Target::Folder { path, .. } => Target::Layout(path),
            other => other,
        },
        _ if !output.dest.is_empty() => {
            return Err(Error::user(format!("the {kind} exporter has no dest")));
        }
        "registry" => {
            kind = "image".to_owned();
            attrs.insert("push".to_owned(), "true".to_owned());
            attrs.entry("unpack".to_owned()).or_insert_with(|| "false".to_owned());
            Target::Nowhere
        }
        _ => Target::Nowhere,
    };
    Ok(Export { kind, attrs, target })
}

fn folder(output: &Output) -> Result<Target> {
    let kind = &output.kind;
    match output.dest.as_str() {
        "" => return Err(Error::user(format!("dest is required for {kind} exporter"))),
        "-" => return Err(Error::user(format!("dest cannot be stdout for {kind} exporter"))),
        _ => {}
    }
    let path = PathBuf::from(&output.dest);
    match std::fs::metadata(&path) {
        Ok(found) if !found.is_dir() => {
            return Err(Error::user(format!("destination directory {} is a file", output.dest)));
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::user(format!("invalid destination directory: {}", output.dest)).because(error));
        }
        _ => {}
    }
    let delete = match output.attrs.get("mode").map(String::as_str) {
        None | Some("" | "copy") => false,
        Some("delete") => true,
        Some(mode) => return Err(Error::user(format!("invalid local exporter mode {mode:?}"))),
    };
    Ok(Target::Folder { path, delete })
}

fn file(output: &Output, around: Surroundings, stdout_used: &mut bool) -> Result<Target> {
    if output.dest.is_empty() || output.dest == "-" {
        if std::mem::replace(stdout_used, true) {
            return Err(Error::user("multiple outputs configured to write to stdout"));
        }
        if around.stdout_is_terminal {
            return Err(Error::user(format!(
                "dest file is required for {} exporter. refusing to write to console",
                output.kind
            )));
        }
        return Ok(Target::Stdout);
    }
    let path = PathBuf::from(&output.dest);
    if path.is_dir() {
        return Err(Error::user(format!("destination file {} is a directory", output.dest)));
    }
    Ok(Target::File(path))
}

fn push(found: &mut Vec<Export>) {
    let mut images = found.iter_mut().filter(|export| export.kind == "image").peekable();
    if images.peek().is_none() {
        let attrs = [("push", "true"), ("unpack", "false")];
        found.push(Export {
            kind: "image".to_owned(),
            attrs: attrs.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            target: Target::Nowhere,
        });
        return;
    }
    for image in images {
        image.attrs.insert("push".to_owned(), "true".to_owned());
        image.attrs.entry("unpack".to_owned()).or_insert_with(|| "false".to_owned());
    }
}

/// Without any output the embedded daemon keeps a named image; any other builder keeps its cache only.
fn default_export(
    options: &Options,
    settings: &Settings,
    around: Surroundings,
    found: &mut Vec<Export>,
) -> Option<String> {
    if settings.flag("BUILDX_NO_DEFAULT_LOAD") == Some(true) {
        return None;
    }
    if !around.embedded {
        return Some(
            "No output specified with remote driver. Build result will only remain in the build cache. To push result \
             image into registry use --push or to load image into docker use --load"
                .to_owned(),
        );
    }
    // The id of an image is asked for, and an image that is not made has none.
    let needs_id = options.quiet || options.iidfile.is_some();
    if options.tags.is_empty() && !needs_id {
        return Some(
            "No output specified. Build result will only remain in the build cache. To keep the result image in the \
             local image store name it with --tag, or see --output, --push and --load"
                .to_owned(),
        );
    }
    found.push(Export { kind: "image".to_owned(), attrs: BTreeMap::new(), target: Target::Nowhere });
    None
}

fn name(export: &mut Export, tags: &[String]) -> Result<()> {
    if !["image", "oci", "docker"].contains(&export.kind.as_str()) {
        return Ok(());
    }
    if !tags.is_empty() {
        export.attrs.insert("name".to_owned(), tags.join(","));
    }
    let is_set = |key: &str| export.attrs.get(key).is_some_and(|value| !value.is_empty());
    let pushes = export.attrs.get("push").and_then(|value| flags::boolean(value)) == Some(true);
    if export.kind == "image" && pushes && !is_set("name") {
        return Err(Error::user("tag is needed when pushing to registry").hint("name the image with --tag"));
    }
    Ok(())
}

/// Decides what `--load` means here.
fn resolve_load(export: &mut Export, options: &Options, around: Surroundings) -> Result<()> {
    if export.kind != "docker" {
        return Ok(());
    }
    let is_list = options.platforms.len() > 1 || options.attestations.values().any(Option::is_some);
    let load = export.target == Target::Engine;
    match (load, around.engine) {
        (true, EngineState::Present { takes_oci: true }) => {
            export.kind = "oci".to_owned();
            export.attrs.insert("prefer-image-digest".to_owned(), "true".to_owned());
        }
        (true, EngineState::Absent) if around.embedded => {
            export.kind = "image".to_owned();
            export.target = Target::Nowhere;
        }
        (true, EngineState::Absent) => {
            export.kind = "oci".to_owned();
            export.target = Target::Store;
        }
        (true, EngineState::Present { .. }) if is_list => {
            return Err(Error::user("docker exporter does not currently support exporting manifest lists")
                .hint("the Docker Engine here takes one platform at a time, unless it uses the containerd image store"));
        }
        (false, _) if is_list => {
            return Err(Error::user(
                "docker exporter does not support exporting manifest lists, use the oci exporter instead",
            ));
        }
        _ => {}
    }
    Ok(())
}

/// Files outside of the working directory are only deleted where the user said so.
fn check_delete(export: &Export, options: &Options) -> Result<()> {
    let Target::Folder { path, delete: true } = &export.target else { return Ok(()) };
    if options.allowed.local_delete {
        return Ok(());
    }
    let real = |path: &Path| {
        let absolute = std::path::absolute(path).ok()?;
        let existing = absolute.ancestors().find(|path| path.exists())?;
        let rest = absolute.strip_prefix(existing).ok()?;
        Some(std::fs::canonicalize(existing).ok()?.join(rest))
    };
    let inside = real(Path::new(".")).zip(real(path)).is_some_and(|(here, there)| {
        there != here && there.starts_with(&here) && !there.components().any(|part| part.as_os_str() == "..")
    });
    if inside {
        return Ok(());
    }
    Err(Error::user(format!(
        "local output mode=delete for destination {:?} requires --allow=buildx.local.delete",
        path.display().to_string()
    )))
}

#[cfg(test)]
mod tests;
