//! What a client may insist on.

use crate::{Detail, Error};
use kiln_proto::errdefs;
use std::collections::BTreeMap;
use tonic::Code;

const KNOWN: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// Refuses options of the past.
pub(super) fn check_removed(opts: &BTreeMap<String, String>) -> Result<(), Error> {
    let removed = |what: &str| Error::unknown(format!("support for {what} was removed in BuildKit 0.11"));
    if opts.get("override-copy-image").is_some_and(|image| !image.is_empty()) {
        return Err(removed("\"override-copy-image\""));
    }
    if opts.get("build-arg:BUILDKIT_DISABLE_FILEOP").is_some_and(|value| is_true(value)) {
        return Err(removed("\"BUILDKIT_DISABLE_FILEOP\" build-arg"));
    }
    Ok(())
}

/// A truth value as Go reads it.
pub(super) fn is_true(word: &str) -> bool {
    kiln_dockerfile::values::parse_bool(word) == Some(true)
}

/// The error for a capability that the frontend does not have, if the client asks for one. It counts only if the
/// build is not forwarded to another frontend, unless the client does not allow that.
pub(super) fn missing(opts: &BTreeMap<String, String>) -> Result<Option<Error>, Error> {
    let mut missing = None;
    let asked = opts.get("frontend.caps").map(String::as_str).unwrap_or_default();
    for cap in asked.split(',').filter(|_| !asked.is_empty()) {
        let (name, may_forward) = match cap.split_once('+') {
            Some((name, rest)) => (name, rest.starts_with("forward") || rest.contains("+forward")),
            None => (cap, false),
        };
        if KNOWN.contains(&name) {
            continue;
        }
        let detail = Detail::FrontendCap(errdefs::FrontendCap { name: name.to_owned() });
        let error =
            Error::new(Code::Unimplemented, format!("unsupported frontend capability {name}")).with(detail);
        if !may_forward {
            return Err(error);
        }
        missing = Some(error);
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opts(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn unknown_capabilities() {
        let caps = |value| missing(&opts("frontend.caps", value));
        assert!(caps("").expect("fine").is_none());
        assert!(
            caps("moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts+forward")
                .expect("fine")
                .is_none()
        );
        let error = caps("moby.buildkit.frontend.inputs,x").expect_err("unknown");
        assert_eq!(error.to_string(), "unsupported frontend capability x");
        assert_eq!((error.code(), error.details().len()), (Code::Unimplemented, 1));
        assert!(caps("x+forward").expect("later").is_some());
    }

    #[test]
    fn removed_options() {
        assert!(check_removed(&opts("build-arg:BUILDKIT_DISABLE_FILEOP", "false")).is_ok());
        let error = check_removed(&opts("build-arg:BUILDKIT_DISABLE_FILEOP", "1")).expect_err("removed");
        assert!(error.to_string().contains("was removed in BuildKit 0.11"));
        assert!(check_removed(&opts("override-copy-image", "x")).is_err());
    }
}
