//! Where the build's files come from: the context, the Dockerfile, and further named contexts.

mod dockerfile;
mod layout;
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use kiln_oci::Digest;
use tempfile::TempDir;

use super::options::Options;
use super::stdin::Peeked;
use crate::error::{Context as _, Error, Result};
use crate::random;
use crate::settings::Settings;

pub use remote::{is_git_ssh, is_remote};

/// Hexadecimal digits that tell two contexts with folders of one name apart.
const KEY_DIGITS: usize = 8;
const NODE_ID_BYTES: usize = 8;

/// A body to be pulled by the daemon, once.
pub type Body = Box<dyn Read + Send>;

/// All that the daemon may ask this machine for, and how it is named.
#[derive(Default)]
pub struct Inputs {
    /// Frontend attributes.
    pub attrs: BTreeMap<String, String>,
    /// Folders by the name that the daemon asks with.
    pub locals: BTreeMap<String, PathBuf>,
    /// OCI image layouts by store id.
    pub layouts: BTreeMap<String, PathBuf>,
    /// The context, where it came on standard input; its address becomes the attribute `context`.
    pub upload: Option<Body>,
    /// Equal for builds of one folder.
    pub shared_key: String,
    /// The Dockerfile is there; [`Inputs::keep_dockerfile`] gets its text before the build.
    pub dockerfile_url: Option<String>,
    /// The Dockerfile's name as the user gave it: warnings and errors name that one.
    pub dockerfile_shown: String,
    /// Gone when the build is.
    temporary: Vec<TempDir>,
}

impl std::fmt::Debug for Inputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inputs")
            .field("attrs", &self.attrs)
            .field("locals", &self.locals)
            .finish_non_exhaustive()
    }
}

impl Inputs {
    /// Takes the text of a Dockerfile that is not a file of this machine.
    pub fn keep_dockerfile(&mut self, text: &[u8], settings: &Settings) -> Result<()> {
        let dir = temporary(settings)?;
        std::fs::write(dir.path().join("Dockerfile"), text).when("keep the Dockerfile")?;
        self.locals.insert("dockerfile".to_owned(), dir.path().to_owned());
        self.attrs.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
        self.temporary.push(dir);
        Ok(())
    }
}

/// Finds the files. `stdin` is read only where a flag says so.
pub fn inputs(options: &Options, settings: &Settings, stdin: impl FnOnce() -> Body) -> Result<Inputs> {
    let mut found = Inputs::default();
    let mut caps = BTreeSet::new();
    let file = options.file.as_str();
    let mut dockerfile_dir = None;
    let mut dockerfile_text = None;
    let mut name = file.to_owned();
    let is_url = remote::is_http(file);
    if is_url {
        found.dockerfile_url = Some(file.to_owned());
        name.clear();
    }
    let context = options.context.as_str();
    let directory = Path::new(context);

    if context.is_empty() {
        return Err(Error::user("please specify build context (e.g. \".\" for the current directory)"));
    } else if context == "-" {
        if file == "-" {
            return Err(Error::user(
                "invalid argument: can't use stdin for both build context and dockerfile",
            ));
        }
        let peeked = Peeked::new(stdin())?;
        if peeked.is_archive() {
            found.upload = Some(Box::new(peeked.into_reader()));
        } else if peeked.is_empty() {
            return Err(Error::user("nothing came on standard input")
                .hint("`-` expects a tar stream or a Dockerfile there"));
        } else if !file.is_empty() {
            return Err(Error::user(
                "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles",
            ));
        } else {
            dockerfile_text = Some(peeked.read_dockerfile()?);
            let empty = temporary(settings)?;
            found.locals.insert("context".to_owned(), empty.path().to_owned());
            found.temporary.push(empty);
        }
    } else if directory.is_dir() {
        found.locals.insert("context".to_owned(), directory.to_owned());
        found.shared_key = shared_key(directory, settings);
        match file {
            "-" => dockerfile_text = Some(Peeked::new(stdin())?.read_dockerfile()?),
            _ if is_url => {}
            "" => dockerfile_dir = Some(directory.to_owned()),
            _ => (dockerfile_dir, name) = split(file)?,
        }
    } else if is_remote(context) {
        if file == "-" {
            dockerfile_text = Some(Peeked::new(stdin())?.read_dockerfile()?);
        } else if Path::new(file).is_absolute() {
            (dockerfile_dir, name) = split(file)?;
            found.attrs.insert("dockerfilekey".to_owned(), "dockerfile".to_owned());
        }
        found.attrs.insert("context".to_owned(), context.to_owned());
        remote::add_git_caps(context, "context", settings, &mut caps)?;
    } else if directory.exists() {
        return Err(Error::user(format!("unable to prepare context: {context:?} is not a directory"))
            .hint("the context is a folder; name the Dockerfile with --file"));
    } else {
        return Err(Error::user(format!("unable to prepare context: path {context:?} not found")));
    }

    found.dockerfile_shown = match file {
        "-" => "stdin".to_owned(),
        "" if context == "-" => "stdin".to_owned(),
        "" => directory.join("Dockerfile").to_string_lossy().into_owned(),
        _ => file.to_owned(),
    };
    if let Some(text) = dockerfile_text {
        found.keep_dockerfile(&text, settings)?;
        name.clear();
    }
    if name.is_empty() {
        name = "Dockerfile".to_owned();
    }
    if let Some(dir) = dockerfile_dir {
        name = dockerfile::actual_name(&dir, &name);
        dockerfile::check(&dir, &name, &found.dockerfile_shown)?;
        found.locals.insert("dockerfile".to_owned(), dir);
    }
    found.attrs.insert("filename".to_owned(), name);

    add_named_contexts(&mut found, options, settings, &mut caps)?;
    if !caps.is_empty() {
        let caps: Vec<String> = caps.into_iter().collect();
        found.attrs.insert("frontend.caps".to_owned(), caps.join(","));
    }
    Ok(found)
}

fn add_named_contexts(
    found: &mut Inputs,
    options: &Options,
    settings: &Settings,
    caps: &mut BTreeSet<String>,
) -> Result<()> {
    for (name, place) in &options.named_contexts {
        caps.insert("moby.buildkit.frontend.contexts+forward".to_owned());
        let key = format!("context:{name}");
        if place.starts_with("target:") {
            return Err(Error::not_yet(format!("the named context {name}={place} (targets of a bake file)")));
        }
        if place.starts_with("docker-image://") {
            found.attrs.insert(key, place.clone());
        } else if is_remote(place) {
            remote::add_git_caps(place, &key, settings, caps)?;
            found.attrs.insert(key, place.clone());
        } else if let Some(layout) = place.strip_prefix("oci-layout://") {
            let store = format!("kiln-{}", &Digest::sha256_of(name).hex()[..16]);
            let reference = layout::resolve(layout)?;
            found.attrs.insert(key, format!("oci-layout://{store}{}", reference.suffix));
            found.layouts.insert(format!("oci:{store}"), reference.dir);
        } else {
            let dir = PathBuf::from(place);
            let metadata = std::fs::metadata(&dir)
                .map_err(|error| Error::user(format!("failed to get build context {name}")).because(error))?;
            if !metadata.is_dir() {
                return Err(Error::user(format!(
                    "failed to get build context {name}: `{place}` is not a directory"
                )));
            }
            let reserved = name == "context" || name == "dockerfile";
            let local = if reserved { format!("_{name}") } else { name.clone() };
            found.attrs.insert(key, format!("local:{local}"));
            found.attrs.insert(format!("sharedkey:localdir:{name}"), shared_key(&dir, settings));
            found.locals.insert(local, dir);
        }
    }
    Ok(())
}

/// `dir/name` → the folder and the name in it.
fn split(file: &str) -> Result<(Option<PathBuf>, String)> {
    let path = Path::new(file);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Error::user(format!("{file:?} is not the name of a Dockerfile")))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Some(dir.to_owned()), name.to_owned()))
}

fn temporary(settings: &Settings) -> Result<TempDir> {
    let parent = settings.temporary_dir();
    tempfile::Builder::new()
        .prefix("kiln-")
        .tempdir_in(&parent)
        .when(format!("make a temporary folder in `{}`", parent.display()))
}

/// Names what a folder sent, so that only differences are sent the next time: the folder's name, this machine's id, and
/// something of its path, for folders of one name would else take turns.
fn shared_key(dir: &Path, settings: &Settings) -> String {
    let absolute = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let base = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The key travels in a header, which takes ASCII only.
    let base: String = base.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    let node = node_id(settings);
    let path = Digest::sha256_of(absolute.as_os_str().as_encoded_bytes());
    format!("{base}:{node}:{}", &path.hex()[..KEY_DIGITS])
}

/// This machine's id among those that use one builder: Buildx's where it has one, else our own.
fn node_id(settings: &Settings) -> String {
    const NAME: &str = ".buildNodeID";
    let read = |path: &Path| std::fs::read_to_string(path).ok().filter(|id| !id.is_empty() && id.len() <= 64);
    let from_buildx = settings.buildx_config_dir().and_then(|dir| read(&dir.join(NAME)));
    if let Some(id) = from_buildx {
        return id.trim().to_owned();
    }
    let Some(state) = settings.state_dir() else { return String::new() };
    let path = state.join(NAME);
    if let Some(id) = read(&path) {
        return id.trim().to_owned();
    }
    let id = random::hex(NODE_ID_BYTES).unwrap_or_default();
    // Without a place to keep it, it holds for this build.
    let _ = DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .and_then(|()| std::fs::write(&path, &id));
    id
}

#[cfg(test)]
mod tests;
