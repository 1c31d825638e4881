//! What the exporters `local` and `tar` have in common: options, and results as trees of files.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kiln_layer::union::Union;
use kiln_oci::{Digest, Timestamp, gojson};
use kiln_store::Ref;

use super::tree::{ExtraFile, Part, Tree};
use super::{ExportBuild, Exporters, attestations, store_failed};
use crate::attrs::{Attrs, parse_bool};
use crate::epoch::EpochOption;
use crate::error::ExportError;
use crate::image::attest::{StatementSubject, statement, without_inline_only};
use crate::source::{PLATFORMS_KEY, PlatformRef, Source};

/// Options of exporters that give out files.
#[derive(Clone, Debug, Default)]
pub(super) struct FileOptions {
    epoch: EpochOption,
    attestation_prefix: String,
    platform_split: Option<bool>,
    /// The target holds the result and nothing else afterwards.
    pub(super) delete: bool,
}

impl FileOptions {
    pub(super) fn new(mut attrs: Attrs) -> Result<Self, ExportError> {
        let epoch = EpochOption::take(&mut attrs)?;
        let platform_split = attrs.get("platform-split").map(|value| {
            parse_bool("platform-split", value, false).map_err(|_| {
                let reason = format!("strconv.ParseBool: parsing {value:?}: invalid syntax");
                ExportError::Conflict(format!("non-bool value for platform-split: {value}: {reason}"))
            })
        });
        let delete = match attrs.get("mode").map(|mode| mode.trim().to_lowercase()).as_deref() {
            None | Some("" | "copy") => false,
            Some("delete") => true,
            Some(_) => {
                let text = format!("invalid local exporter mode {:?}", attrs["mode"]);
                return Err(ExportError::Conflict(text));
            }
        };
        Ok(Self {
            epoch,
            attestation_prefix: attrs.remove("attestation-prefix").unwrap_or_default(),
            platform_split: platform_split.transpose()?,
            delete,
        })
    }

    /// Whether each platform gets a folder of its own.
    pub(super) fn splits(&self, source: &Source<Ref>) -> bool {
        self.platform_split.unwrap_or_else(|| source.is_map())
    }
}

/// The platforms of a result, checked.
pub(super) fn platforms(source: &Source<Ref>) -> Result<Vec<PlatformRef>, ExportError> {
    if source.is_map() && !source.metadata.contains_key(PLATFORMS_KEY) {
        let text = "unable to export multiple refs, missing platforms mapping";
        return Err(ExportError::Result(text.to_owned()));
    }
    let platforms = source.platforms()?.platforms;
    if !source.is_map() && platforms.len() > 1 {
        let text = "unable to export multiple platforms without map";
        return Err(ExportError::Result(text.to_owned()));
    }
    Ok(platforms)
}

/// A platform's id as a name of a folder.
pub(super) fn folder_name(platform: &PlatformRef) -> String {
    platform.id.replace('/', "_")
}

/// The files of a platform's result, with its attestations beside them.
pub(super) async fn part(
    exporters: &Exporters,
    source: &Source<Ref>,
    build: &ExportBuild,
    options: &FileOptions,
    platform: &PlatformRef,
    folder: Option<String>,
) -> Result<Part, ExportError> {
    let epoch = options.epoch.resolve(source, Some(platform))?;
    let union = match source.find(&platform.id)? {
        None => Union::empty(),
        Some(reference) => {
            let failed = || store_failed("failed to read the result");
            exporters.unpack(reference, build).await.map_err(failed())?;
            exporters.store.union(reference).map_err(failed())?
        }
    };
    let mut part = Part { folder, union, extra: Vec::new(), epoch };
    let wanted =
        without_inline_only(source.attestations.get(&platform.id).map(Vec::as_slice).unwrap_or_default());
    if !wanted.is_empty() {
        part.extra = attestation_files(exporters, build, options, source, platform, &part, &wanted).await?;
    }
    Ok(part)
}

async fn attestation_files(
    exporters: &Exporters,
    build: &ExportBuild,
    options: &FileOptions,
    source: &Source<Ref>,
    platform: &PlatformRef,
    part: &Part,
    wanted: &[crate::source::Attestation<Ref>],
) -> Result<Vec<ExtraFile>, ExportError> {
    let read = attestations::read(exporters, build, wanted).await?;
    // Statements about files name each with its digest.
    let union = part.union.clone();
    let subjects = exporters
        .store
        .pool()
        .run(move || hash_files(&union))
        .await
        .map_err(store_failed("failed to read the result"))??;
    let with_platform = source.is_map() && !options.splits(source);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mtime_ns = Timestamp::from_unix(i64::try_from(now).unwrap_or(0))
        .map_or(0, |now| i64::try_from(now.unix_nanos()).unwrap_or(0));
    let mut files: Vec<ExtraFile> = Vec::new();
    for one in &read {
        let made = statement(&one.predicate, &one.predicate_type, &one.subjects, &subjects)?;
        let json = gojson::to_vec_indented(&made)
            .map_err(|source| ExportError::Json { what: "attestation", source })?;
        let base = one.path.rsplit('/').next().unwrap_or_default();
        let mut name = format!("{}{base}", options.attestation_prefix);
        if with_platform {
            let (stem, extension) = match name.rfind('.') {
                Some(dot) => (name[..dot].to_owned(), name[dot..].to_owned()),
                None => (name.clone(), String::new()),
            };
            name = format!("{stem}.{}{extension}", folder_name(platform));
        }
        if name.contains('/') || files.iter().any(|file| file.name == name) {
            return Err(ExportError::Attestation(format!("duplicate attestation path name {name}")));
        }
        files.push(ExtraFile { name, bytes: Bytes::from(json), mtime_ns });
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// All regular files with their digests.
fn hash_files(union: &Union) -> Result<Vec<StatementSubject>, ExportError> {
    let failed = |error: kiln_layer::Error| ExportError::failed("failed to read the result", error);
    let mut subjects = Vec::new();
    for node in union.walk("").map_err(failed)? {
        let node = node.map_err(failed)?;
        if !node.meta.is_file() {
            continue;
        }
        let mut hasher = kiln_oci::Hasher::sha256();
        let mut file = node.open().map_err(failed)?;
        std::io::copy(&mut file, &mut hasher)
            .map_err(|error| ExportError::failed("failed to read the result", error))?;
        let digest: Digest = hasher.finish();
        subjects.push(StatementSubject::new(node.path.to_string_lossy(), &digest));
    }
    Ok(subjects)
}

/// Refuses two results with a file of the same name.
pub(super) fn check_no_overlap(parts: &[(String, &Part)]) -> Result<(), ExportError> {
    use kiln_session::fsync::FsSource;
    let mut seen: std::collections::HashMap<String, &str> = std::collections::HashMap::new();
    for (platform, part) in parts {
        let tree = Tree { parts: vec![part.share()] };
        let mut twice = None;
        let walked = tree.walk(&mut |stat| {
            if !stat.is_dir()
                && let Some(first) = seen.insert(stat.path.clone(), platform.as_str())
            {
                twice.get_or_insert_with(|| (stat.path.clone(), first.to_owned()));
            }
            Ok(())
        });
        walked.map_err(|error| ExportError::failed("failed to read the result", error))?;
        if let Some((path, first)) = twice {
            return Err(ExportError::Result(format!(
                "cannot overwrite {path} from {first} with {platform} when split option is disabled"
            )));
        }
    }
    Ok(())
}
