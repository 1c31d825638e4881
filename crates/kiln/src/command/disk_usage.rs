//! `kiln du`.

use kiln_progress::units;
use kiln_proto::control::{DiskUsageRequest, UsageRecord};
use serde_json::json;

use super::connect;
use crate::cli::DiskUsageArgs;
use crate::error::{Error, Result};
use crate::output::{ago, print, table};
use crate::printer::now;
use crate::settings::Settings;
use crate::{flags, output};

/// Shows what the cache of a builder holds.
pub async fn disk_usage(args: &DiskUsageArgs, settings: &Settings, builder: Option<&str>) -> Result<()> {
    let filters = flags::filters(&args.filter)?;
    let has_filter = !args.filter.is_empty();
    let builder = connect(settings, builder).await?;
    let request = DiskUsageRequest { filter: joined(&filters.expressions), age_limit: filters.age_nanos };
    let records = builder
        .client
        .disk_usage(request)
        .await
        .map_err(|error| Error::environment("cannot get the disk usage").because(error))?;
    let text = match (args.format.as_str(), args.verbose) {
        ("json", _) => records.iter().map(|record| json(record) + "\n").collect(),
        (_, true) => records.iter().map(verbose).collect::<String>() + &summary(&records, has_filter),
        _ => rows(&records) + &summary(&records, has_filter),
    };
    print(&text)
}

/// All conditions hold at once, which the daemon reads from one text with commas.
pub(super) fn joined(expressions: &[String]) -> Vec<String> {
    if expressions.is_empty() { Vec::new() } else { vec![expressions.join(",")] }
}

fn seconds_since(time: Option<kiln_proto::prost_types::Timestamp>) -> Option<i64> {
    time.map(|time| now().nanos() / 1_000_000_000 - time.seconds)
}

pub(super) fn heading() -> Vec<String> {
    ["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"].map(str::to_owned).to_vec()
}

pub(super) fn row(record: &UsageRecord) -> Vec<String> {
    let mutable = if record.mutable { "*" } else { "" };
    let shared = if record.shared { "*" } else { "" };
    vec![
        format!("{}{mutable}", record.id),
        (!record.in_use).to_string(),
        format!("{}{shared}", units::bytes(record.size)),
        seconds_since(record.last_used_at).map(ago).unwrap_or_default(),
    ]
}

fn rows(records: &[UsageRecord]) -> String {
    table(&std::iter::once(heading()).chain(records.iter().map(row)).collect::<Vec<_>>())
}

pub(super) fn verbose(record: &UsageRecord) -> String {
    let mut rows = vec![("ID", record.id.clone())];
    if !record.parents.is_empty() {
        rows.push(("Parents", record.parents.join(",")));
    }
    rows.push(("Created at", seconds_since(record.created_at).map(ago).unwrap_or_default()));
    rows.push(("Mutable", record.mutable.to_string()));
    rows.push(("Reclaimable", (!record.in_use).to_string()));
    rows.push(("Shared", record.shared.to_string()));
    rows.push(("Size", units::bytes(record.size)));
    if !record.description.is_empty() {
        rows.push(("Description", record.description.clone()));
    }
    rows.push(("Usage count", record.usage_count.to_string()));
    if let Some(last) = seconds_since(record.last_used_at) {
        rows.push(("Last used", ago(last)));
    }
    if !record.record_type.is_empty() {
        rows.push(("Type", record.record_type.clone()));
    }
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(key, value)| vec![format!("{key}:"), value]).collect();
    output::table(&rows) + "\n"
}

fn json(record: &UsageRecord) -> String {
    json!({
        "ID": record.id,
        "Parents": record.parents,
        "Mutable": record.mutable,
        "Reclaimable": !record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "Description": record.description,
        "UsageCount": record.usage_count,
        "Type": record.record_type,
    })
    .to_string()
}

fn summary(records: &[UsageRecord], filtered: bool) -> String {
    if filtered {
        return String::new();
    }
    let sum = |wanted: fn(&UsageRecord) -> bool| {
        units::bytes(records.iter().filter(|record| wanted(record)).map(|record| record.size.max(0)).sum())
    };
    let shared = sum(|record| record.shared);
    let mut rows = Vec::new();
    if records.iter().any(|record| record.shared) {
        rows.push(vec!["Shared:".to_owned(), shared]);
        rows.push(vec!["Private:".to_owned(), sum(|record| !record.shared)]);
    }
    rows.push(vec!["Reclaimable:".to_owned(), sum(|record| !record.in_use)]);
    rows.push(vec!["Total:".to_owned(), sum(|_| true)]);
    table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told() {
        let record = |id: &str, size, in_use, shared| UsageRecord {
            id: id.into(),
            size,
            in_use,
            shared,
            mutable: id == "b",
            description: "local source for context".into(),
            record_type: "source.local".into(),
            ..UsageRecord::default()
        };
        let records = [record("a", 1500, false, true), record("b", 10, true, false)];
        insta::assert_snapshot!(
            rows(&records) + &summary(&records, false) + &verbose(&records[1]) + &json(&records[0])
        );
        assert_eq!(summary(&records, true), "");
    }
}
