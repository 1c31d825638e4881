//! Questions about the Dockerfile instead of a build.

use super::definition::Definition;
use super::opt;
use super::resolver::Service;
use crate::{Bridge, Detail, Error, Solution};
use bytes::Bytes;
use kiln_dockerfile::{Findings, FrontendOptions, subrequest};
use kiln_proto::errdefs;
use tonic::Code;

impl<B: Bridge> Service<'_, B> {
    /// The answer to a subrequest, if it is one.
    pub(super) async fn subrequest(
        &self,
        definition: &Definition,
        options: &FrontendOptions,
    ) -> Result<Option<Solution<B::Ref>>, Error> {
        let Some(name) = opt(self.request, "requestid") else { return Ok(None) };
        let text = definition.text();
        let convert = &options.convert;
        let failed = |error: kiln_dockerfile::Error| {
            // Without the lines: what asks such things shows them by itself.
            match error.resolve_error().and_then(|inner| inner.downcast_ref::<Error>()) {
                Some(inner) => inner.clone().with_message(error.to_string()),
                None => Error::unknown(error.to_string()),
            }
        };
        let solution = match name {
            subrequest::DESCRIBE => {
                answer(subrequest::describe_json(), subrequest::describe_text(), subrequest::DESCRIBE_VERSION)
            }
            subrequest::OUTLINE => {
                let findings = Findings::default();
                let outline = kiln_dockerfile::outline(text, convert, self, Some(&findings)).await;
                self.report(definition, findings.take()).await;
                let outline = outline.map_err(failed)?;
                answer(outline.to_json(), outline.to_text(), subrequest::OUTLINE_VERSION)
            }
            subrequest::TARGETS => {
                let targets = kiln_dockerfile::targets(text).map_err(failed)?;
                answer(targets.to_json(), targets.to_text(), subrequest::TARGETS_VERSION)
            }
            subrequest::LINT => {
                let report = kiln_dockerfile::lint(text, convert, self).await;
                let mut solution = answer(report.to_json(), report.to_text(), subrequest::LINT_VERSION);
                let status = report.status_code().to_string();
                solution.metadata.insert("result.statuscode".to_owned(), status.into());
                solution
            }
            other => {
                let detail = Detail::Subrequest(errdefs::Subrequest { name: other.to_owned() });
                let text = format!("unsupported request {other}");
                return Err(Error::new(Code::Unimplemented, text).with(detail));
            }
        };
        Ok(Some(solution))
    }
}

fn answer<R>(json: Vec<u8>, text: String, version: &'static str) -> Solution<R> {
    let mut solution = Solution::single(None);
    let entries = [
        ("result.json", Bytes::from(json)),
        ("result.txt", Bytes::from(text)),
        ("version", Bytes::from_static(version.as_bytes())),
    ];
    solution.metadata.extend(entries.map(|(key, value)| (key.to_owned(), value)));
    solution
}
