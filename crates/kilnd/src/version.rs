//! What the daemon says it is.

use kiln_proto::types::BuildkitVersion;

/// Package that the daemon names itself by.
const PACKAGE: &str = "kiln";
/// Version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Version of BuildKit whose behaviour servers may expect.
pub const BUILDKIT_VERSION: &str = "v0.26";
/// Version of the Dockerfile syntax that the built-in frontend has (BuildKit's frontend image of that number).
pub const DOCKERFILE_VERSION: &str = "1.20.0";

/// The answer to `Control.Info`, and a part of every worker's record.
pub fn record() -> BuildkitVersion {
    BuildkitVersion {
        package: PACKAGE.to_owned(),
        version: format!("v{VERSION}"),
        revision: String::new(),
        dockerfile_version: DOCKERFILE_VERSION.to_owned(),
    }
}

/// What `kilnd --version` prints.
pub fn line() -> String {
    format!("{PACKAGE}d v{VERSION}")
}
