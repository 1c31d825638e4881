//! What a step says about itself besides its operation.

use std::sync::Arc;

use kiln_oci::Platform;

use crate::metadata::{DESCRIPTION_CUSTOM_NAME, LinuxResources, OpMetadata, ProgressGroup};
use crate::source_map::SourceLocation;

/// Options that every step takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Constraints {
    /// What it runs on or is for; none: the state's, else that of [`MarshalOptions`].
    pub platform: Option<Platform>,
    /// Filters on workers.
    pub worker_filters: Vec<String>,
    /// Outside the digest. The capabilities that the step itself needs are added when it is made.
    pub metadata: OpMetadata,
    /// Where it comes from.
    pub locations: Vec<SourceLocation>,
    /// Makes a local source differ from equal ones of other builds; none: that of [`MarshalOptions`].
    pub local_unique_id: Option<String>,
}

impl Constraints {
    /// No constraints.
    pub fn new() -> Self {
        Self::default()
    }

    /// The platform.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.platform = Some(platform);
        self
    }

    /// The name in progress output.
    pub fn custom_name(self, name: impl Into<String>) -> Self {
        self.description(DESCRIPTION_CUSTOM_NAME, name)
    }

    /// One text of the description.
    pub fn description(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.describe(key.into(), value.into());
        self
    }

    /// Run even if there is a cached result.
    pub fn ignore_cache(mut self, ignore: bool) -> Self {
        self.metadata.ignore_cache |= ignore;
        self
    }

    /// Whether the result may go into an exported cache.
    pub fn export_cache(mut self, export: bool) -> Self {
        self.metadata.export_cache = Some(export);
        self
    }

    /// The progress group.
    pub fn progress_group(mut self, id: impl Into<String>, name: impl Into<String>, weak: bool) -> Self {
        self.metadata.progress_group =
            Some(Arc::new(ProgressGroup { id: id.into(), name: name.into(), weak }));
        self
    }

    /// Limits for the process of an exec step.
    pub fn linux_resources(mut self, limits: LinuxResources) -> Self {
        self.metadata.linux_resources = Some(Box::new(limits));
        self
    }

    /// A place in a source file.
    pub fn location(mut self, location: SourceLocation) -> Self {
        self.locations.push(location);
        self
    }

    pub(crate) fn need(&mut self, cap: &str) {
        Arc::make_mut(&mut self.metadata.caps).insert(cap.to_string());
    }
}

/// What holds for a whole graph when it is written down.
#[derive(Debug, Clone, PartialEq)]
pub struct MarshalOptions {
    /// The platform of steps that name none.
    pub platform: Platform,
    /// Makes local sources differ from equal ones of other builds; the caller draws it, since nothing here is random.
    pub local_unique_id: String,
    /// Filters on workers for every step.
    pub worker_filters: Vec<String>,
    /// Metadata that every step begins with.
    pub metadata: OpMetadata,
}

impl MarshalOptions {
    /// For this platform.
    pub fn new(platform: Platform, local_unique_id: impl Into<String>) -> Self {
        Self {
            platform,
            local_unique_id: local_unique_id.into(),
            worker_filters: Vec::new(),
            metadata: OpMetadata::default(),
        }
    }
}
