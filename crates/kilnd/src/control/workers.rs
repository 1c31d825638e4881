//! `ListWorkers`: the one worker there is.

use std::collections::BTreeMap;

use kiln_proto::pb;
use kiln_proto::types::{GcPolicy, WorkerRecord};
use tonic::Status;

use crate::daemon::Daemon;
use crate::version;

pub(super) fn list(daemon: &Daemon, filters: &[String]) -> Result<Vec<WorkerRecord>, Status> {
    let worker = daemon.worker.info();
    let labels: BTreeMap<String, String> = worker.labels.clone();
    if !filters.is_empty() {
        let mut any = false;
        for filter in filters {
            any |= matches(filter, &worker.id, &labels)?;
        }
        if !any {
            return Ok(Vec::new());
        }
    }
    Ok(vec![WorkerRecord {
        id: worker.id.clone(),
        labels,
        platforms: worker.platforms.iter().map(platform).collect(),
        gc_policy: daemon.gc_policies().iter().map(policy).collect(),
        buildkit_version: Some(version::record()),
        cdi_devices: Vec::new(),
    }])
}

fn platform(platform: &kiln_oci::Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        os_version: platform.os_version.clone(),
        os_features: platform.os_features.clone(),
    }
}

fn policy(policy: &crate::settings::GcPolicy) -> GcPolicy {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    GcPolicy {
        all: policy.all,
        filters: policy.filters.clone(),
        keep_duration: i64::try_from(policy.keep_duration.as_nanos()).unwrap_or(i64::MAX),
        reserved_space: signed(policy.reserved_space),
        max_used_space: signed(policy.max_used_space),
        min_free_space: signed(policy.min_free_space),
    }
}

/// Whether a filter (`id==x`, `labels.name==y`, `labels.name`; several with commas) takes the worker.
fn matches(filter: &str, id: &str, labels: &BTreeMap<String, String>) -> Result<bool, Status> {
    for term in filter.split(',') {
        let (field, equal, value) = match term.split_once("==") {
            Some((field, value)) => (field, true, Some(value)),
            None => match term.split_once("!=") {
                Some((field, value)) => (field, false, Some(value)),
                None => (term, true, None),
            },
        };
        let value = value.map(|value| value.trim_matches('"'));
        let found = match field.trim() {
            "id" => Some(id),
            field => match field.strip_prefix("labels.") {
                Some(label) => labels.get(label.trim_matches('"')).map(String::as_str),
                None => return Err(Status::invalid_argument(format!("`{filter}` is no filter for workers"))),
            },
        };
        let same = match value {
            Some(value) => found == Some(value),
            None => found.is_some(),
        };
        if same != equal {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        for yes in ["id==w", "labels.a==b", "labels.a", "id!=x,labels.a"] {
            assert!(matches(yes, "w", &labels).unwrap(), "{yes}");
        }
        for no in ["id==x", "labels.c", "labels.a==b,id==x"] {
            assert!(!matches(no, "w", &labels).unwrap(), "{no}");
        }
        assert!(matches("colour==red", "w", &labels).is_err());
    }
}
