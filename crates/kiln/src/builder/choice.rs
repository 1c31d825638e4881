//! Which builder: `--builder`, then `BUILDX_BUILDER`, then `BUILDKIT_HOST`, then the embedded one.

use kiln_client::{Address, TlsOptions};

use super::{EMBEDDED, instance};
use crate::docker::config::Config;
use crate::docker::context;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// A builder that is not connected to yet.
#[derive(Clone, Debug)]
pub enum Choice {
    /// This user's own daemon.
    Embedded,
    /// A daemon elsewhere.
    Remote {
        /// For people.
        name: String,
        /// Where it answers.
        address: Address,
        /// Certificates, where it wants them.
        tls: Option<TlsOptions>,
    },
}

/// Chooses. `flag` is the value of `--builder`.
pub fn choose(settings: &Settings, config: &Config, flag: Option<&str>) -> Result<Choice> {
    let named =
        flag.filter(|name| !name.is_empty()).map(str::to_owned).or_else(|| settings.var("BUILDX_BUILDER"));
    if let Some(name) = named {
        return by_name(settings, config, &name);
    }
    match settings.var("BUILDKIT_HOST") {
        Some(address) => by_address("remote", &address),
        None => Ok(Choice::Embedded),
    }
}

fn by_name(settings: &Settings, config: &Config, name: &str) -> Result<Choice> {
    if name.contains("://") {
        return by_address(name, name);
    }
    if let Some(found) = instance::find(settings, name)? {
        return Ok(found);
    }
    // The Docker CLI asks for the builder that has the name of the Docker context: that is what a build without any
    // builder set up uses, so it is ours.
    if name == EMBEDDED || name == context::DEFAULT || name == context::current(settings, config) {
        return Ok(Choice::Embedded);
    }
    Err(Error::user(format!("no builder {name:?} found")).hint(
        "give its address (such as --builder unix:///run/buildkit/buildkitd.sock), or leave --builder out",
    ))
}

fn by_address(name: &str, address: &str) -> Result<Choice> {
    let address = Address::parse(address).map_err(|error| Error::user(error.to_string()))?;
    Ok(Choice::Remote { name: name.to_owned(), address, tls: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    fn shown(variables: &[(&str, &str)], flag: Option<&str>) -> Result<String> {
        choose(&settings(variables), &Config::default(), flag).map(|choice| match choice {
            Choice::Embedded => "embedded".to_owned(),
            Choice::Remote { name, address, tls } => format!("{name} {address} {}", tls.is_some()),
        })
    }

    #[test]
    fn the_nearest_word_counts() {
        let host = ("BUILDKIT_HOST", "unix:///h");
        assert_eq!(shown(&[], None).unwrap(), "embedded");
        assert_eq!(shown(&[host], None).unwrap(), "remote unix:///h false");
        assert_eq!(shown(&[host, ("BUILDX_BUILDER", "default")], None).unwrap(), "embedded");
        assert_eq!(
            shown(&[host, ("BUILDX_BUILDER", "x")], Some("tcp://h:1")).unwrap(),
            "tcp://h:1 tcp://h:1 false"
        );
        assert_eq!(
            shown(&[("BUILDX_BUILDER", "mine"), ("DOCKER_CONTEXT", "mine")], None).unwrap(),
            "embedded"
        );
        assert!(shown(&[("BUILDX_BUILDER", "gone")], None).is_err());
        assert!(shown(&[("BUILDKIT_HOST", "what")], None).is_err());
    }

    #[test]
    fn buildx_instances_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("instances")).unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(dir.path().join("instances").join(name), text).unwrap();
        write(
            "far",
            r#"{"Name":"far","Driver":"remote","Nodes":[{"Name":"far0","Endpoint":"tcp://h:1234",
                "DriverOpts":{"cacert":"/c","cert":"/p","key":"/k","servername":"s"}}]}"#,
        );
        write("boxed", r#"{"Name":"boxed","Driver":"docker-container","Nodes":[{"Name":"boxed0"}]}"#);
        let config = ("BUILDX_CONFIG", dir.path().to_str().unwrap());
        assert_eq!(shown(&[config], Some("far")).unwrap(), "far tcp://h:1234 true");
        let error = shown(&[config], Some("boxed")).unwrap_err().to_string();
        assert!(error.contains("docker-container"), "{error}");
        assert!(shown(&[config], Some("../instances/far")).is_err());
    }
}
