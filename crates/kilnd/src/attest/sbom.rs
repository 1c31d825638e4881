//! Bills of materials for builds whose frontend makes none.

use futures::future::try_join_all;
use kiln_dockerfile::SbomOptions;
use kiln_export::source::PlatformRef;
use kiln_frontend::sbom::{PREDICATE_TYPE, Scan, Scanner};
use kiln_frontend::{Bridge, Error, Refs, Solution};
use kiln_llb::State;

use crate::bridge::{BuildBridge, Promise};
use crate::control::BuildRequest;

/// Has the results scanned, unless the frontend did that itself.
///
/// # Errors
/// The scanner cannot be found, or what it is to scan is no graph.
pub async fn scan(
    bridge: &BuildBridge,
    request: &BuildRequest,
    wish: &SbomOptions,
    platforms: &[PlatformRef],
    solution: &mut Solution<Promise>,
) -> Result<(), Error> {
    if solution.attestations.values().flatten().any(|one| one.predicate_type == PREDICATE_TYPE) {
        return Ok(());
    }
    // What the daemon looks up and runs for this is no part of what was asked for.
    let bridge = bridge.apart();
    let runs_on = bridge.workers().into_iter().flat_map(|worker| worker.platforms).next().unwrap_or_default();
    let resolve_mode = request.frontend_opts.get("image-resolve-mode").map_or("default", String::as_str);
    let scanner = Scanner::find(&bridge, wish, &runs_on, resolve_mode).await?;
    let ignore_cache = request.frontend_opts.get("no-cache").is_some_and(String::is_empty);
    let scans = platforms.iter().filter_map(|platform| {
        let result = match &solution.refs {
            Refs::Single(one) => one.as_ref(),
            Refs::Map(many) => many.get(&platform.id).and_then(Option::as_ref),
        }?;
        Some((platform.id.as_str(), result))
    });
    let made = try_join_all(scans.map(|(id, result)| async {
        let core = State::from_definition(&result.definition().read())?;
        let scan = Scan { platform_id: id, core: &core, extras: &[], ignore_cache };
        Ok::<_, Error>((id.to_owned(), scanner.scan(&bridge, scan, &request.id).await?))
    }));
    for (id, attestation) in made.await? {
        solution.attestations.entry(id).or_default().push(attestation);
    }
    Ok(())
}
