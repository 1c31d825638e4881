//! What belongs to a vertex without being part of its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_proto::pb;

/// Key of [`OpMetadata::description`]: the vertex's name in progress output.
pub const DESCRIPTION_CUSTOM_NAME: &str = "llb.customname";

/// Metadata of a vertex.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OpMetadata {
    /// Run even if there is a cached result.
    pub ignore_cache: bool,
    /// Texts for people and tools, by their keys, in order; shared with whoever shows them.
    pub description: Arc<[(String, String)]>,
    /// Whether the result may go into an exported cache; none: the exporter decides.
    pub export_cache: Option<bool>,
    /// Capabilities that the vertex needs.
    pub caps: Arc<BTreeSet<String>>,
    /// The group that its progress is shown in.
    pub progress_group: Option<Arc<ProgressGroup>>,
    /// Limits for its process; few vertices have any.
    pub linux_resources: Option<Box<LinuxResources>>,
}

/// Vertices that progress shows as one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Equal for all members.
    pub id: String,
    /// What is shown.
    pub name: String,
    /// Gives way to a group of another name.
    pub weak: bool,
}

/// Limits of a process; zero or empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinuxResources {
    /// Memory in bytes.
    pub memory: i64,
    /// Memory and swap in bytes.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: u64,
    /// Length of a scheduling period in microseconds.
    pub cpu_period: u64,
    /// Processor time in such a period in microseconds.
    pub cpu_quota: i64,
    /// Processors, as in `0-3,7`.
    pub cpuset_cpus: String,
    /// Memory nodes, as in `0-3,7`.
    pub cpuset_mems: String,
}

impl OpMetadata {
    /// Sets a text of the description.
    pub fn describe(&mut self, key: String, text: String) {
        let mut all: BTreeMap<String, String> = self.description.iter().cloned().collect();
        all.insert(key, text);
        self.description = all.into_iter().collect();
    }

    /// A text of the description.
    pub fn described(&self, key: &str) -> Option<&str> {
        let at = self.description.binary_search_by(|(known, _)| known.as_str().cmp(key)).ok()?;
        Some(&self.description[at].1)
    }

    /// Takes over what `other` says, as two vertices that turn out equal are merged.
    pub fn merge(&mut self, other: &OpMetadata) {
        self.ignore_cache |= other.ignore_cache;
        if self.description.is_empty() {
            self.description.clone_from(&other.description);
        } else if !other.description.is_empty() {
            other.description.iter().for_each(|(key, text)| self.describe(key.clone(), text.clone()));
        }
        if other.export_cache.is_some() {
            self.export_cache = other.export_cache;
        }
        if self.caps.is_empty() {
            self.caps.clone_from(&other.caps);
        } else if !other.caps.is_subset(&self.caps) {
            Arc::make_mut(&mut self.caps).extend(other.caps.iter().cloned());
        }
        if other.progress_group.is_some() {
            self.progress_group.clone_from(&other.progress_group);
        }
        if other.linux_resources.is_some() {
            self.linux_resources.clone_from(&other.linux_resources);
        }
    }
}

impl From<&pb::OpMetadata> for OpMetadata {
    fn from(metadata: &pb::OpMetadata) -> Self {
        Self {
            ignore_cache: metadata.ignore_cache,
            description: metadata.description.iter().map(|(key, text)| (key.clone(), text.clone())).collect(),
            export_cache: metadata.export_cache.map(|export| export.value),
            // As BuildKit reads it: to be listed is to be needed, whatever the value says.
            caps: Arc::new(metadata.caps.keys().cloned().collect()),
            progress_group: metadata.progress_group.as_ref().map(|group| {
                Arc::new(ProgressGroup { id: group.id.clone(), name: group.name.clone(), weak: group.weak })
            }),
            linux_resources: metadata.linux_resources.as_ref().map(|limits| {
                Box::new(LinuxResources {
                    memory: limits.memory,
                    memory_swap: limits.memory_swap,
                    cpu_shares: limits.cpu_shares,
                    cpu_period: limits.cpu_period,
                    cpu_quota: limits.cpu_quota,
                    cpuset_cpus: limits.cpuset_cpus.clone(),
                    cpuset_mems: limits.cpuset_mems.clone(),
                })
            }),
        }
    }
}

impl From<&OpMetadata> for pb::OpMetadata {
    fn from(metadata: &OpMetadata) -> Self {
        Self {
            ignore_cache: metadata.ignore_cache,
            description: metadata.description.iter().cloned().collect(),
            export_cache: metadata.export_cache.map(|value| pb::ExportCache { value }),
            caps: metadata.caps.iter().map(|cap| (cap.clone(), true)).collect(),
            progress_group: metadata.progress_group.as_ref().map(|group| pb::ProgressGroup {
                id: group.id.clone(),
                name: group.name.clone(),
                weak: group.weak,
            }),
            linux_resources: metadata.linux_resources.as_ref().map(|limits| pb::LinuxResources {
                memory: limits.memory,
                memory_swap: limits.memory_swap,
                cpu_shares: limits.cpu_shares,
                cpu_period: limits.cpu_period,
                cpu_quota: limits.cpu_quota,
                cpuset_cpus: limits.cpuset_cpus.clone(),
                cpuset_mems: limits.cpuset_mems.clone(),
            }),
        }
    }
}
