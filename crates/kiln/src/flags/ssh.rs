//! `--ssh`.

/// An agent socket or keys, under the id that steps ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshAgent {
    /// `default`, or what `RUN --mount=type=ssh,id=…` says.
    pub id: String,
    /// One socket, or key files; empty for the agent of the environment.
    pub paths: Vec<String>,
}

/// Reads `ID[=PATH,…]`.
pub fn ssh_agents(values: &[String]) -> Vec<SshAgent> {
    values
        .iter()
        .filter(|value| !value.is_empty())
        .map(|value| match value.split_once('=') {
            Some((id, paths)) => {
                SshAgent { id: id.to_owned(), paths: paths.split(',').map(str::to_owned).collect() }
            }
            None => SshAgent { id: value.clone(), paths: Vec::new() },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ids_and_paths() {
        let found = ssh_agents(&["default".into(), String::new(), "git=a,b".into()]);
        assert_eq!(found.len(), 2);
        assert!(found[0].paths.is_empty());
        assert_eq!((found[1].id.as_str(), found[1].paths.len()), ("git", 2));
    }
}
