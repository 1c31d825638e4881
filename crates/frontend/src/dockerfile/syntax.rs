//! The frontend that the Dockerfile, or the client, wants instead of this one.

use super::definition::Definition;
use super::opt;
use super::resolver::Service;
use crate::{Bridge, Error, Solution, SolveRequest};
use kiln_oci::Reference;

const SYNTAX_ARG: &str = "build-arg:BUILDKIT_SYNTAX";
const GATEWAY: &str = "gateway.v0";
/// Repositories whose images are this frontend.
const BUILT_IN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];
const BUILT_IN_DOMAIN: &str = "docker.io";

impl<B: Bridge> Service<'_, B> {
    /// The answer of another frontend, if another one is wanted.
    pub(super) async fn forward(&self, definition: &Definition) -> Result<Option<Solution<B::Ref>>, Error> {
        if opt(self.request, "cmdline").is_some() {
            // It is another frontend that runs already.
            return Ok(None);
        }
        if let Some(command) = opt(self.request, SYNTAX_ARG) {
            let image = command.trim().split(' ').next().unwrap_or_default();
            if is_built_in(image) {
                return Ok(None);
            }
            let answer = self.run_image(image, command).await;
            return answer.map(Some).map_err(|error| match error.has_source() {
                true => error,
                false => error.context(format!("failed with {SYNTAX_ARG} = {command}")),
            });
        }
        let Some(directive) = kiln_dockerfile::detect_syntax(definition.text()) else { return Ok(None) };
        let image = directive.first_word();
        if is_built_in(image) {
            return Ok(None);
        }
        let answer = self.run_image(image, &directive.value).await;
        answer.map(Some).map_err(|error| match error.has_source() {
            true => error,
            false => self.at_lines(error, definition, &directive.location),
        })
    }

    async fn run_image(&self, image: &str, command: &str) -> Result<Solution<B::Ref>, Error> {
        let mut opts = self.request.opts.clone();
        opts.insert("cmdline".to_owned(), command.to_owned());
        opts.insert("source".to_owned(), image.to_owned());
        let request = SolveRequest {
            frontend: GATEWAY.to_owned(),
            frontend_opts: opts,
            frontend_inputs: self.request.inputs.clone(),
            ..SolveRequest::default()
        };
        self.bridge.solve(request).await
    }
}

/// Whether an image is the Dockerfile frontend itself.
fn is_built_in(image: &str) -> bool {
    Reference::parse(image)
        .is_ok_and(|reference| reference.domain() == BUILT_IN_DOMAIN && BUILT_IN.contains(&reference.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_the_dockerfile_frontend_are_built_in() {
        for image in
            ["docker/dockerfile", "docker/dockerfile:1.7-labs", "docker.io/docker/dockerfile-upstream:master"]
        {
            assert!(is_built_in(image), "{image}");
        }
        for image in ["docker/dockerfile-x", "r.example.com/docker/dockerfile:1", "dockerfile", ""] {
            assert!(!is_built_in(image), "{image}");
        }
    }
}
