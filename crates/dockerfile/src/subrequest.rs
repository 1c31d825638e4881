//! Subrequests: what a frontend can be asked for besides a build.

use crate::table::Table;
use serde::Serialize;

pub use crate::lint::LINT_VERSION;
pub use crate::outline::OUTLINE_VERSION;
pub use crate::targets::TARGETS_VERSION;

/// Lists the subrequests.
pub const DESCRIBE: &str = "frontend.subrequests.describe";
/// Lists what a target can be given.
pub const OUTLINE: &str = "frontend.outline";
/// Lists the targets.
pub const TARGETS: &str = "frontend.targets";
/// Checks the Dockerfile.
pub const LINT: &str = "frontend.lint";

/// Version of the list of subrequests.
pub const DESCRIBE_VERSION: &str = "1.0.0";

#[derive(Serialize)]
struct Request {
    name: &'static str,
    version: &'static str,
    r#type: &'static str,
    description: &'static str,
    opts: Option<Vec<Named>>,
    inputs: Option<Vec<Named>>,
    metadata: Vec<Named>,
    refs: Option<Vec<Named>>,
}

#[derive(Serialize)]
struct Named {
    name: &'static str,
    description: &'static str,
}

fn requests() -> [Request; 3] {
    let named = |name, description| Named { name, description };
    let results = || vec![named("result.json", ""), named("result.txt", "")];
    let request = |name, version, description, opts| Request {
        name,
        version,
        r#type: "rpc",
        description,
        opts,
        inputs: None,
        metadata: results(),
        refs: None,
    };
    let outline_opts = Some(vec![named("target", "Target build stage")]);
    [
        request(OUTLINE, OUTLINE_VERSION, "List all parameters current build target supports", outline_opts),
        request(TARGETS, TARGETS_VERSION, "List all targets current build supports", Some(Vec::new())),
        request(DESCRIBE, DESCRIBE_VERSION, "List available subrequest types", None),
    ]
}

/// `result.json` of [`DESCRIBE`].
pub fn describe_json() -> Vec<u8> {
    crate::json::to_vec(&requests())
}

/// `result.txt` of [`DESCRIBE`].
pub fn describe_text() -> String {
    let mut table = Table::new(1);
    table.row(["NAME", "VERSION", "DESCRIPTION"]);
    for request in requests() {
        let name = request.name.strip_prefix("frontend.").unwrap_or(request.name);
        table.row([name, request.version, request.description]);
    }
    table.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_requests() {
        let want = "NAME                 VERSION DESCRIPTION\n\
                    outline              1.0.0   List all parameters current build target supports\n\
                    targets              1.0.0   List all targets current build supports\n\
                    subrequests.describe 1.0.0   List available subrequest types\n";
        assert_eq!(describe_text(), want);
        let json: serde_json::Value = serde_json::from_slice(&describe_json()).unwrap();
        assert_eq!(json[0]["opts"][0]["name"], "target");
        assert_eq!(json[2]["type"], "rpc");
    }
}
