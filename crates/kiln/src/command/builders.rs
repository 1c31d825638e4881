//! `kiln ls` and `kiln inspect`.

use kiln_client::Client;
use kiln_proto::types::WorkerRecord;
use serde_json::json;

use super::connect;
use crate::builder::{self, Builder, Choice, EMBEDDED};
use crate::cli::{InspectArgs, ListBuildersArgs};
use crate::docker::config::Config;
use crate::error::{Error, Result};
use crate::output::{print, table};
use crate::settings::Settings;

/// A line of the list.
struct Entry {
    name: String,
    driver: &'static str,
    address: String,
    status: &'static str,
    version: String,
    platforms: String,
    error: Option<String>,
    current: bool,
}

/// Lists the embedded builder and the one of the environment.
pub async fn list(args: &ListBuildersArgs, settings: &Settings, flag: Option<&str>) -> Result<()> {
    let config = Config::load(settings)?;
    let choice = builder::choose(settings, &config, flag)?;
    let is_embedded = matches!(choice, Choice::Embedded);
    let running = builder::running(settings).await?;
    let mut entries = vec![Entry {
        name: EMBEDDED.to_owned(),
        driver: EMBEDDED,
        address: running.address.to_string(),
        status: if running.client.is_some() { "running" } else { "inactive" },
        version: String::new(),
        platforms: String::new(),
        error: None,
        current: is_embedded,
    }];
    if let Some(client) = &running.client {
        describe(&mut entries[0], client).await;
    }
    if let Choice::Remote { name, address, .. } = &choice {
        let mut entry = Entry {
            name: name.clone(),
            driver: "remote",
            address: address.to_string(),
            status: "running",
            version: String::new(),
            platforms: String::new(),
            error: None,
            current: true,
        };
        match builder::connect(settings, &choice).await {
            Ok(builder) => describe(&mut entry, &builder.client).await,
            Err(error) => (entry.status, entry.error) = ("error", Some(error.to_string())),
        }
        entries.push(entry);
    }
    if args.format == "json" {
        let lines = entries.iter().map(|entry| {
            let fields = json!({
                "Name": entry.name, "Driver": entry.driver, "Endpoint": entry.address, "Status": entry.status,
                "Buildkit": entry.version, "Platforms": entry.platforms, "Current": entry.current, "Error": entry.error,
            });
            fields.to_string() + "\n"
        });
        return print(&lines.collect::<String>());
    }
    let mut rows =
        vec![["NAME", "DRIVER", "ENDPOINT", "STATUS", "VERSION", "PLATFORMS"].map(str::to_owned).to_vec()];
    rows.extend(entries.iter().map(|entry| {
        let mark = if entry.current { "*" } else { "" };
        vec![
            format!("{}{mark}", entry.name),
            entry.driver.to_owned(),
            entry.address.clone(),
            entry.status.to_owned(),
            entry.version.clone(),
            entry.platforms.clone(),
        ]
    }));
    let errors = entries.iter().filter_map(|entry| entry.error.as_ref()).map(|error| format!("\n{error}\n"));
    print(&(table(&rows) + &errors.collect::<String>()))
}

async fn describe(entry: &mut Entry, client: &Client) {
    match client.workers().await {
        Ok(workers) => {
            entry.platforms = platforms(&workers);
            entry.version = version(&workers);
        }
        Err(error) => (entry.status, entry.error) = ("error", Some(error.to_string())),
    }
}

fn platforms(workers: &[WorkerRecord]) -> String {
    let mut all: Vec<String> = Vec::new();
    for platform in workers.iter().flat_map(|worker| &worker.platforms) {
        let parts = [&platform.os, &platform.architecture, &platform.variant];
        let text = parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("/");
        if !all.contains(&text) {
            all.push(text);
        }
    }
    all.join(", ")
}

fn version(workers: &[WorkerRecord]) -> String {
    let version = workers.iter().find_map(|worker| worker.buildkit_version.as_ref());
    version.map(|version| version.version.clone()).unwrap_or_default()
}

/// Describes one builder; `--bootstrap` is what connecting does anyway.
pub async fn inspect(args: &InspectArgs, settings: &Settings, flag: Option<&str>) -> Result<()> {
    let name = args.name.as_deref().or(flag);
    let config = Config::load(settings)?;
    let choice = builder::choose(settings, &config, name)?;
    if matches!(choice, Choice::Embedded) && !args.bootstrap {
        let running = builder::running(settings).await?;
        if running.client.is_none() {
            let rows = [
                ("Name:", EMBEDDED),
                ("Driver:", EMBEDDED),
                ("Endpoint:", &running.address.to_string()),
                ("Status:", "inactive"),
            ];
            return print(&pairs(&rows.map(|(key, value)| (key.to_owned(), value.to_owned()))));
        }
    }
    let builder = connect(settings, name).await?;
    let workers = builder
        .client
        .workers()
        .await
        .map_err(|error| Error::environment("the builder does not answer").because(error))?;
    print(&describe_all(&builder, &workers))
}

fn describe_all(builder: &Builder, workers: &[WorkerRecord]) -> String {
    let own = |text: &str| text.to_owned();
    let mut rows = vec![
        (own("Name:"), builder.name.clone()),
        (own("Driver:"), own(builder.driver)),
        (own("Endpoint:"), builder.address.to_string()),
        (own("Status:"), own("running")),
        (own("BuildKit version:"), version(workers)),
        (own("Platforms:"), platforms(workers)),
    ];
    for worker in workers {
        rows.push((own("Worker:"), worker.id.clone()));
        let mut labels: Vec<_> = worker.labels.iter().collect();
        labels.sort();
        rows.extend(labels.into_iter().map(|(key, value)| (format!(" {key}:"), value.clone())));
        for (number, rule) in worker.gc_policy.iter().enumerate() {
            rows.push((format!("GC Policy rule#{number}:"), String::new()));
            rows.push((own(" All:"), rule.all.to_string()));
            if !rule.filters.is_empty() {
                rows.push((own(" Filters:"), rule.filters.join(" ")));
            }
            if rule.keep_duration > 0 {
                rows.push((own(" Keep Duration:"), format!("{}s", rule.keep_duration / 1_000_000_000)));
            }
        }
    }
    pairs(&rows)
}

fn pairs(rows: &[(String, String)]) -> String {
    table(&rows.iter().map(|(key, value)| vec![key.clone(), value.clone()]).collect::<Vec<_>>())
}
