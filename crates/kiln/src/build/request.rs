//! The request that a build is, from flags, files and surroundings. Nothing is asked or read here.

use std::collections::BTreeMap;

use kiln_proto::control::{Exporter, SolveRequest};

use super::cache::Caches;
use super::inputs::Inputs;
use super::options::Options;
use super::outputs::Export;
use crate::error::{Error, Result};
use crate::flags::HostAddress;

/// The built-in frontend, and the one that runs another from an image.
const DOCKERFILE_FRONTEND: &str = "dockerfile.v0";
const GATEWAY_FRONTEND: &str = "gateway.v0";
/// What a builder attests when nobody asked.
const DEFAULT_PROVENANCE: &str = "mode=min,inline-only=true";

/// What is known of the builder.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// It attests on its own, as BuildKit does.
    pub default_provenance: bool,
    /// The address by which steps reach its host, where it tells.
    pub host_gateway: Option<String>,
}

/// All parts of a request.
#[derive(Debug)]
pub struct Parts<'a> {
    pub options: &'a Options,
    pub inputs: &'a Inputs,
    pub exports: &'a [Export],
    pub caches: &'a Caches,
    pub facts: &'a Facts,
    /// Proxies of the Docker CLI's configuration.
    pub proxies: &'a [(String, String)],
    /// `vcs:*` and labels.
    pub git: &'a BTreeMap<String, String>,
    /// Address of a context that comes from standard input.
    pub upload: Option<String>,
    /// The session that answers for all this.
    pub session: &'a str,
    /// Name of the build.
    pub build: &'a str,
}

/// Puts the request together.
pub fn request(parts: &Parts<'_>) -> Result<SolveRequest> {
    let options = parts.options;
    let mut attrs = frontend_attrs(parts)?;
    let mut frontend = DOCKERFILE_FRONTEND;
    if let Some(syntax) = options.build_args.get("BUILDKIT_SYNTAX") {
        let image = syntax.split_whitespace().next().ok_or_else(|| {
            Error::user(
                "empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior",
            )
        })?;
        frontend = GATEWAY_FRONTEND;
        attrs.insert("source".to_owned(), image.to_owned());
        attrs.insert("cmdline".to_owned(), syntax.clone());
    }
    let mut entitlements = options.allowed.entitlements.clone();
    if options.network == "host" && !entitlements.iter().any(|name| name == "network.host") {
        entitlements.push("network.host".to_owned());
    }
    let exporters: Vec<Exporter> = parts
        .exports
        .iter()
        .map(|export| Exporter {
            r#type: export.kind.clone(),
            attrs: export.attrs.clone().into_iter().collect(),
        })
        .collect();
    // Older daemons read the first exporter from these.
    let first = exporters.first().cloned().unwrap_or_default();
    Ok(SolveRequest {
        r#ref: parts.build.to_owned(),
        session: parts.session.to_owned(),
        frontend: frontend.to_owned(),
        frontend_attrs: attrs.into_iter().collect(),
        cache: Some(parts.caches.options.clone()),
        entitlements,
        exporter_deprecated: first.r#type,
        exporter_attrs_deprecated: first.attrs,
        exporters,
        internal: options.call.is_some(),
        ..SolveRequest::default()
    })
}

fn frontend_attrs(parts: &Parts<'_>) -> Result<BTreeMap<String, String>> {
    let options = parts.options;
    let mut attrs = parts.inputs.attrs.clone();
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            attrs.insert(key.to_owned(), value.to_owned());
        }
    };
    set("target", &options.target);
    set("cgroup-parent", &options.cgroup_parent);
    set("force-network-mode", &options.network);
    set("ulimit", &options.ulimits);
    set("context", parts.upload.as_deref().unwrap_or_default());
    set("no-cache", &options.no_cache_filter.join(","));
    set("cache-imports", parts.caches.frontend_attr.as_deref().unwrap_or_default());
    set("platform", &join(options.platforms.iter()));
    set("add-hosts", &hosts(parts)?);
    if options.pull {
        set("image-resolve-mode", "pull");
    }
    if options.shm_size > 0 {
        set("shm-size", &options.shm_size.to_string());
    }
    if options.build_arg_flag("BUILDKIT_MULTI_PLATFORM") {
        set("multi-platform", "true");
    }
    if options.no_cache {
        // Empty means every stage.
        attrs.insert("no-cache".to_owned(), String::new());
    }
    for (kind, value) in &options.attestations {
        if let Some(value) = value {
            attrs.insert(format!("attest:{kind}"), value.clone());
        }
    }
    if parts.facts.default_provenance && !options.attestations.contains_key("provenance") {
        attrs.insert("attest:provenance".to_owned(), DEFAULT_PROVENANCE.to_owned());
    }
    let given = |name: &str| options.build_args.keys().any(|key| key.eq_ignore_ascii_case(name));
    let proxies = parts.proxies.iter().filter(|(name, _)| !given(name));
    attrs.extend(proxies.map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
    attrs.extend(options.build_args.iter().map(|(name, value)| (format!("build-arg:{name}"), value.clone())));
    attrs.extend(options.labels.iter().map(|(name, value)| (format!("label:{name}"), value.clone())));
    attrs.extend(options.resources.clone());
    attrs.extend(parts.git.clone());
    Ok(attrs)
}

fn hosts(parts: &Parts<'_>) -> Result<String> {
    let mut found = Vec::new();
    for host in &parts.options.hosts {
        let address = match (&host.address, &parts.facts.host_gateway) {
            (HostAddress::Ip(ip), _) => ip.to_string(),
            (HostAddress::Gateway, Some(ip)) => ip.clone(),
            (HostAddress::Gateway, None) => {
                return Err(Error::user(
                    "unable to derive the IP value for host-gateway: the builder does not tell one",
                )
                .hint("give the address itself with --add-host"));
            }
        };
        found.push(format!("{}={address}", host.name));
    }
    Ok(found.join(","))
}

fn join(list: impl Iterator<Item = impl ToString>) -> String {
    list.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::options::tests::parse;

    fn make(arguments: &[&str], facts: Facts) -> Result<SolveRequest> {
        let line: Vec<&str> = arguments.iter().copied().chain(["."]).collect();
        let inputs = Inputs::default();
        let proxies = [("HTTP_PROXY".to_owned(), "p".to_owned()), ("no_proxy".to_owned(), "n".to_owned())];
        request(&Parts {
            options: &parse(&line, &[]).unwrap(),
            inputs: &inputs,
            exports: &[],
            caches: &Caches::default(),
            facts: &facts,
            proxies: &proxies,
            git: &BTreeMap::new(),
            upload: None,
            session: "s",
            build: "b",
        })
    }

    #[test]
    fn flags_become_attributes() {
        let line = [
            "--target=t",
            "--pull",
            "--no-cache",
            "--network=host",
            "--shm-size=64m",
            "--ulimit=core=1",
            "--platform=linux/amd64,linux/arm64",
            "--build-arg=A=1",
            "--build-arg=http_proxy=mine",
            "--label=l=2",
            "--add-host=h:10.0.0.1,i:10.0.0.2",
            "--allow=security.insecure",
            "--memory=1g",
            "--sbom=true",
            "--cgroup-parent=c",
        ];
        let made = make(&line, Facts::default()).unwrap();
        let attrs: BTreeMap<_, _> = made.frontend_attrs.into_iter().collect();
        insta::assert_debug_snapshot!(attrs);
        assert_eq!(made.entitlements, ["security.insecure", "network.host"]);
        assert_eq!(
            (made.frontend.as_str(), made.session.as_str(), made.r#ref.as_str()),
            ("dockerfile.v0", "s", "b")
        );
        assert!(!made.internal);
    }

    #[test]
    fn a_syntax_argument_chooses_the_frontend() {
        let made = make(&["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1 x"], Facts::default()).unwrap();
        assert_eq!(made.frontend, "gateway.v0");
        assert_eq!(made.frontend_attrs["source"], "docker/dockerfile:1");
        assert!(make(&["--build-arg", "BUILDKIT_SYNTAX="], Facts::default()).is_err());
    }

    #[test]
    fn provenance_is_by_default_where_builders_make_it() {
        let facts = || Facts { default_provenance: true, host_gateway: Some("1.2.3.4".into()) };
        let key = "attest:provenance";
        assert_eq!(make(&[], facts()).unwrap().frontend_attrs[key], DEFAULT_PROVENANCE);
        assert!(!make(&["--provenance=false"], facts()).unwrap().frontend_attrs.contains_key(key));
        assert!(!make(&[], Facts::default()).unwrap().frontend_attrs.contains_key(key));
        let gateway = ["--add-host", "h:host-gateway"];
        assert_eq!(make(&gateway, facts()).unwrap().frontend_attrs["add-hosts"], "h=1.2.3.4");
        assert!(make(&gateway, Facts::default()).is_err());
    }

    #[test]
    fn questions_are_internal() {
        assert!(make(&["--check"], Facts::default()).unwrap().internal);
    }
}
