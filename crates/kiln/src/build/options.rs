//! The flags, understood. What is asked of a later version is refused here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_oci::Platform;
use kiln_progress::Mode;

use crate::cli::BuildArgs;
use crate::error::{Error, Result};
use crate::flags::{
    self, Allowed, Annotation, Attestations, CacheEntry, Call, Host, Output, Secret, SshAgent, csv,
};
use crate::settings::Settings;

/// Build argument and variable with the time that results carry.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What to build, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub context: String,
    pub file: String,
    pub target: String,
    pub tags: Vec<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: Vec<Annotation>,
    pub attestations: Attestations,
    pub platforms: Vec<Platform>,
    pub outputs: Vec<Output>,
    pub push: bool,
    pub load: bool,
    pub cache_from: Vec<CacheEntry>,
    pub cache_to: Vec<CacheEntry>,
    pub no_cache: bool,
    pub no_cache_filter: Vec<String>,
    pub pull: bool,
    pub network: String,
    pub hosts: Vec<Host>,
    pub named_contexts: BTreeMap<String, String>,
    pub secrets: Vec<Secret>,
    pub ssh: Vec<SshAgent>,
    pub allowed: Allowed,
    pub call: Option<Call>,
    pub cgroup_parent: String,
    pub shm_size: i64,
    pub ulimits: String,
    pub resources: BTreeMap<String, String>,
    pub progress: Mode,
    pub quiet: bool,
    pub iidfile: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    /// Said before the build.
    pub warnings: Vec<&'static str>,
}

impl Options {
    /// Understands the flags, and the variables that stand in for some of them.
    pub fn parse(args: &BuildArgs, settings: &Settings) -> Result<Self> {
        refuse_later(args, settings)?;
        let mut build_args = flags::build_args(&args.build_arg, |name| settings.raw_var(name))?;
        if let (false, Some(epoch)) =
            (build_args.contains_key(SOURCE_DATE_EPOCH), settings.var(SOURCE_DATE_EPOCH))
        {
            build_args.insert(SOURCE_DATE_EPOCH.to_owned(), epoch);
        }
        let outputs = flags::outputs(&args.output)?;
        let writes_files = outputs.iter().any(|output| output.kind == "local" || output.kind == "tar");
        if args.iidfile.is_some() && writes_files {
            return Err(Error::user("local and tar exporters are incompatible with image ID file"));
        }
        if args.no_cache && !args.no_cache_filter.is_empty() {
            return Err(Error::user("--no-cache and --no-cache-filter cannot currently be used together"));
        }
        let method = if args.check { "check" } else { args.legacy.print.as_deref().unwrap_or(&args.call) };
        let platforms = match &args.platform[..] {
            [] => settings.var("DOCKER_DEFAULT_PLATFORM").into_iter().collect(),
            given => given.to_vec(),
        };
        let mut hosts = Vec::new();
        for value in &args.add_host {
            hosts.extend(csv::fields(value)?);
        }
        let (progress, quiet) = display(args, settings)?;
        let resources: Vec<String> =
            args.legacy.resources().into_iter().chain(args.resource.clone()).collect();
        Ok(Self {
            context: args.context.clone(),
            file: args.file.clone(),
            target: args.target.clone(),
            tags: args.tag.clone(),
            build_args,
            labels: flags::labels(&args.label)?,
            annotations: flags::annotations(&args.annotation)?,
            attestations: flags::attestations(
                &args.attest,
                args.provenance.as_deref(),
                args.sbom.as_deref(),
            )?,
            platforms: flags::platforms(&platforms)?,
            outputs,
            push: args.push,
            load: args.load,
            cache_from: flags::cache_entries(&args.cache_from)?,
            cache_to: flags::cache_entries(&args.cache_to)?,
            no_cache: args.no_cache,
            no_cache_filter: args.no_cache_filter.clone(),
            pull: args.pull,
            network: network(&args.network)?,
            hosts: flags::hosts(&hosts)?,
            named_contexts: flags::named_contexts(&args.build_context)?,
            secrets: flags::secrets(&args.secret, |name| settings.raw_var(name).is_some())?,
            ssh: flags::ssh_agents(&args.ssh),
            allowed: flags::entitlements(&args.allow)?,
            call: flags::call(method)?,
            cgroup_parent: args.cgroup_parent.clone(),
            shm_size: args.shm_size,
            ulimits: flags::ulimits(&args.ulimit)?,
            resources: flags::resource_attrs(&resources)?,
            progress,
            quiet,
            iidfile: args.iidfile.clone(),
            metadata_file: args.metadata_file.clone(),
            warnings: args.legacy.warnings(),
        })
    }

    /// Truth of a build argument that the client acts on.
    pub fn build_arg_flag(&self, name: &str) -> bool {
        self.build_args.get(name).and_then(|value| flags::boolean(value)).unwrap_or(false)
    }
}

fn refuse_later(args: &BuildArgs, settings: &Settings) -> Result<()> {
    if !args.policy.is_empty() {
        return Err(Error::not_yet("--policy"));
    }
    if settings.var("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY").is_some() {
        return Err(Error::not_yet("a source policy (EXPERIMENTAL_BUILDKIT_SOURCE_POLICY)"));
    }
    Ok(())
}

fn network(mode: &str) -> Result<String> {
    match mode {
        "" | "default" => Ok(String::new()),
        "host" | "none" => Ok(mode.to_owned()),
        _ => Err(Error::user(format!("network mode {mode:?} not supported by buildkit"))
            .in_context("failed to build")
            .hint("known are default, none and host")),
    }
}

/// The display, and whether to end with the image's id alone.
fn display(args: &BuildArgs, settings: &Settings) -> Result<(Mode, bool)> {
    let parse = |name: &str| name.parse::<Mode>().map_err(|error| Error::user(error.to_string()));
    let quiet = args.quiet || args.progress == "quiet";
    let given = parse(&args.progress)?;
    if quiet {
        if !matches!(given, Mode::Auto | Mode::Quiet) {
            return Err(Error::user(format!("progress={} and quiet cannot be used together", args.progress)));
        }
        return Ok((Mode::Quiet, true));
    }
    match settings.var("BUILDKIT_PROGRESS") {
        Some(name) if given == Mode::Auto => Ok((parse(&name)?, false)),
        _ => Ok((given, false)),
    }
}

#[cfg(test)]
pub mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::settings::tests::settings;

    /// Options of a command line.
    pub fn parse(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Options> {
        let all = ["kiln", "build"].iter().chain(arguments).copied();
        let Command::Build(args) = Cli::try_parse_from(all).expect("a valid line").command else {
            panic!("not a build")
        };
        Options::parse(&args, &settings(variables))
    }

    #[test]
    fn variables_stand_in() {
        let variables = [
            ("SOURCE_DATE_EPOCH", "7"),
            ("DOCKER_DEFAULT_PLATFORM", "linux/arm64"),
            ("BUILDKIT_PROGRESS", "plain"),
            ("TOKEN", "t"),
        ];
        let found = parse(&["--build-arg", "TOKEN", "."], &variables).unwrap();
        assert_eq!(found.build_args["SOURCE_DATE_EPOCH"], "7");
        assert_eq!(found.build_args["TOKEN"], "t");
        assert_eq!(found.platforms[0].to_string(), "linux/arm64");
        assert_eq!(found.progress, Mode::Plain);
        let found = parse(&["--progress=tty", "--platform=linux/amd64", "."], &variables).unwrap();
        assert_eq!((found.progress, found.platforms.len()), (Mode::Tty, 1));
    }

    #[test]
    fn quiet_has_two_spellings() {
        for line in [&["-q", "."] as &[&str], &["--progress=quiet", "."]] {
            let found = parse(line, &[("BUILDKIT_PROGRESS", "plain")]).unwrap();
            assert!(found.quiet && found.progress == Mode::Quiet);
        }
        let none = parse(&["--progress=none", "."], &[]).unwrap();
        assert!(!none.quiet && none.progress == Mode::Quiet);
        assert!(parse(&["-q", "--progress=plain", "."], &[]).is_err());
    }

    #[test]
    fn contradictions_are_refused() {
        let wrong: [&[&str]; 5] = [
            &["--no-cache", "--no-cache-filter", "a", "."],
            &["--iidfile", "x", "-o", "dir", "."],
            &["--network", "bridge", "."],
            &["--progress", "fancy", "."],
            &["--policy", "x", "."],
        ];
        for line in wrong {
            assert!(parse(line, &[]).is_err(), "{line:?}");
        }
    }
}
