//! The exporter `local`: the files of a result in a folder of the client.

use std::sync::Arc;

use futures::future::try_join_all;
use kiln_session::daemon::Caller;
use kiln_session::fsync::Spools;
use kiln_store::Ref;

use super::files::{FileOptions, check_no_overlap, folder_name, part, platforms};
use super::tree::Tree;
use super::{ExportBuild, Exported, Exporters};
use crate::attrs::Attrs;
use crate::error::ExportError;
use crate::source::Source;

pub(super) struct LocalExporter {
    options: FileOptions,
}

impl LocalExporter {
    pub(super) fn new(attrs: Attrs) -> Result<Self, ExportError> {
        Ok(Self { options: FileOptions::new(attrs)? })
    }

    pub(super) async fn export(
        &self,
        id: u32,
        exporters: &Exporters,
        source: &Source<Ref>,
        build: &ExportBuild,
    ) -> Result<Exported, ExportError> {
        let caller = exporters.caller(build).await?;
        let platforms = platforms(source)?;
        let split = self.options.splits(source);
        let each = platforms.iter().map(|platform| async {
            let folder = split.then(|| folder_name(platform));
            let part = part(exporters, source, build, &self.options, platform, folder).await?;
            Ok::<_, ExportError>((platform.id.clone(), part))
        });
        let parts = try_join_all(each).await?;
        let spools = Spools::new(exporters.store.scratch_dir());
        let to = Receiver { caller: &caller, exporter: id, spools: &spools };
        if !split && parts.len() > 1 {
            let shared: Vec<_> = parts.iter().map(|(id, part)| (id.clone(), part)).collect();
            check_no_overlap(&shared)?;
        }
        if self.options.delete {
            // One transfer: what is not in it goes.
            let tree = Tree { parts: parts.into_iter().map(|(_, part)| part).collect() };
            to.send(true, tree, build, "copying files").await?;
        } else {
            try_join_all(parts.into_iter().map(|(platform, part)| {
                let label =
                    if split { format!("copying files {platform}") } else { "copying files".to_owned() };
                let to = &to;
                async move { to.send(false, Tree { parts: vec![part] }, build, &label).await }
            }))
            .await?;
        }
        Ok(Exported::told(Default::default()))
    }
}

/// The client's folder.
struct Receiver<'a> {
    caller: &'a Caller,
    exporter: u32,
    spools: &'a Spools,
}

impl Receiver<'_> {
    async fn send(
        &self,
        multi_platform: bool,
        tree: Tree,
        build: &ExportBuild,
        label: &str,
    ) -> Result<(), ExportError> {
        let step = Arc::new(build.reporter.step_called(label, "transferring"));
        let shown = step.clone();
        let progress = move |bytes, _last| shown.progress(bytes, 0);
        self.caller
            .send_files(self.exporter, multi_platform, tree, self.spools.clone(), progress)
            .await
            .map_err(|error| ExportError::failed("failed to send files to the client", error))
    }
}
