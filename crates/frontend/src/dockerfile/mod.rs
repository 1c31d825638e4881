//! The built-in frontend `dockerfile.v0`: what has to be done around kiln-dockerfile.
//!
//! It finds the Dockerfile, the ignore file and the build context, answers the conversion's questions by way of
//! the bridge, and has every platform's graph solved. Names of steps, attributes and texts are BuildKit's.

mod answer;
mod caps;
mod context;
mod convert;
mod definition;
mod epoch;
mod resolver;
mod subrequest;
mod syntax;

use crate::{Bridge, Error, FrontendRequest, Solution};
use definition::Definition;
use kiln_dockerfile::FrontendOptions;
use kiln_oci::Platform;
use resolver::Service;

/// The frontend's name in requests.
pub const NAME: &str = "dockerfile.v0";

/// Runs the frontend.
pub async fn build<B: Bridge>(bridge: &B, request: &FrontendRequest) -> Result<Solution<B::Ref>, Error> {
    caps::check_removed(&request.opts)?;
    let build_platform = build_platform(bridge);
    let mut options =
        FrontendOptions::parse(&request.opts, build_platform).map_err(|error| Error::of(&error))?;
    options.convert.session_id.clone_from(&request.session_id);
    let missing = caps::missing(&request.opts)?;

    let service = Service::new(bridge, request, &options);
    let definition = service.read_definition().await?;
    if let Some(solution) = service.forward(&definition).await? {
        return Ok(solution);
    }
    if let Some(error) = missing {
        return Err(error);
    }
    options.convert.source_map = Some(definition.source_map.clone());
    if let Some(solution) = service.subrequest(&definition, &options).await? {
        return Ok(solution);
    }
    service.build(&definition, &options).await
}

fn build_platform<B: Bridge>(bridge: &B) -> Platform {
    let first = bridge.workers().into_iter().next().and_then(|worker| worker.platforms.into_iter().next());
    first.unwrap_or_else(kiln_oci::platform::default_for_host)
}

/// What is read from the attributes that have a name of their own.
fn opt<'a>(request: &'a FrontendRequest, key: &str) -> Option<&'a str> {
    request.opts.get(key).map(String::as_str)
}

impl<B: Bridge> Service<'_, B> {
    /// Puts an error to lines of the Dockerfile.
    fn at_lines(
        &self,
        error: Error,
        definition: &Definition,
        lines: &[kiln_dockerfile::location::Range],
    ) -> Error {
        error.at(definition.source_info(), answer::ranges(lines))
    }
}
