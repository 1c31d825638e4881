//! `kiln prune`.

use std::io::{BufRead as _, Write as _};

use kiln_progress::units;
use kiln_proto::control::PruneRequest;

use super::{connect, disk_usage};
use crate::cli::PruneArgs;
use crate::error::{Context as _, Error, Result};
use crate::flags;
use crate::output::{print, table};
use crate::settings::Settings;

/// Removes what the cache of a builder holds and nobody uses.
pub async fn prune(args: &PruneArgs, settings: &Settings, builder: Option<&str>) -> Result<()> {
    let filters = flags::filters(&args.filter)?;
    if !args.force && !confirm(args.all)? {
        return Ok(());
    }
    let builder = connect(settings, builder).await?;
    let request = PruneRequest {
        filter: disk_usage::joined(&filters.expressions),
        all: args.all,
        keep_duration: filters.age_nanos,
        reserved_space: args.reserved_space,
        max_used_space: args.max_used_space,
        min_free_space: args.min_free_space,
    };
    let failed = |error: kiln_client::Error| Error::environment("cannot prune the cache").because(error);
    let mut gone = builder.client.prune(request).await.map_err(failed)?;
    let mut total = 0;
    let mut rows = vec![disk_usage::heading()];
    while let Some(record) = gone.message().await.map_err(|status| failed(status.into()))? {
        total += record.size.max(0);
        if args.verbose {
            print(&disk_usage::verbose(&record))?;
        } else {
            rows.push(disk_usage::row(&record));
        }
    }
    if rows.len() > 1 {
        print(&table(&rows))?;
    }
    print(&format!("Total:\t{}\n", units::bytes(total)))
}

/// Asks the user; no answer is a no.
fn confirm(all: bool) -> Result<bool> {
    let what = if all { "all build cache" } else { "all dangling build cache" };
    let mut errors = std::io::stderr().lock();
    // Without anyone to see the question there is nobody to say yes either.
    let _ = write!(errors, "WARNING! This will remove {what}. Are you sure you want to continue? [y/N] ");
    let _ = errors.flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).when("read standard input")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
