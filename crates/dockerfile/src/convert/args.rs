//! Arguments of the build: those that tell platforms, those before the first stage, and proxies.

use super::error::ConvertError;
use super::options::Platforms;
use crate::error::Error;
use crate::instruction::{GlobalArgs, Program};
use crate::lint::{Linter, Rule};
use crate::location::Range;
use crate::outline::{ArgInfo, Capture};
use crate::shell::{Env, Lexer, Uses};
use crate::suggest::{Case, nearest};
use kiln_llb::{EnvList, ProxyEnv};
use kiln_oci::{Platform, Reference};
use std::collections::BTreeMap;
use std::sync::Arc;

const TARGET_PLATFORM: &str = "TARGETPLATFORM";

/// The arguments that are always there.
pub(super) fn platform_args(
    platforms: &Platforms,
    build_args: &BTreeMap<String, String>,
    target: &str,
) -> EnvList {
    let Platforms { build, target: platform, .. } = platforms;
    let target = if target.is_empty() { "default" } else { target };
    let pairs = [
        ("BUILDPLATFORM", build.short()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", build.os_version.clone()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        (TARGET_PLATFORM, platform.to_string()),
        ("TARGETOS", platform.os.clone()),
        ("TARGETOSVERSION", platform.os_version.clone()),
        ("TARGETARCH", platform.architecture.clone()),
        ("TARGETVARIANT", platform.variant.clone()),
        ("TARGETSTAGE", target.to_owned()),
    ];
    pairs.into_iter().map(|(name, value)| (name, build_args.get(name).cloned().unwrap_or(value))).collect()
}

/// The arguments before the first stage, each with the value that the build gives or its default.
pub(super) fn global_args(
    mut args: EnvList,
    lexer: &Lexer,
    definitions: &[GlobalArgs],
    build_args: &BTreeMap<String, String>,
) -> Result<(EnvList, Capture), Error> {
    let mut infos: BTreeMap<String, ArgInfo> = BTreeMap::new();
    for GlobalArgs { args: definitions, location } in definitions {
        for definition in definitions {
            let key = &definition.key;
            let mut info = ArgInfo::new(definition, location);
            let value = match (build_args.get(key), &definition.value) {
                (Some(given), _) => Some(given.clone()),
                (None, None) => None,
                (None, Some(default)) => {
                    let mut uses = Uses::default();
                    let value = lexer
                        .expand_noting(default, &args, &mut uses)
                        .map_err(|error| Error::from(error).at(location))?;
                    info.deps = uses.matched.iter().cloned().collect();
                    // One that is defined by its own former value inherits what that came from.
                    if info.deps.remove(key)
                        && let Some(former) = infos.get(key)
                    {
                        info.deps.extend(former.deps.iter().cloned());
                    }
                    Some(value)
                }
            };
            if let Some(value) = value {
                args.set(key, &value);
                info.value = value;
            }
            infos.insert(key.clone(), info);
        }
    }
    Ok((args, Capture { global: Arc::new(infos), ..Capture::default() }))
}

/// Every base has a valid name also without any argument of the build.
pub(super) fn check_default_bases(program: &Program, lexer: &Lexer, args: &EnvList, lint: &Linter) {
    // If this fails, so will the conversion, and says why.
    let Ok((args, _)) = global_args(args.clone(), lexer, &program.global_args, &BTreeMap::new()) else {
        return;
    };
    for stage in &program.stages {
        let Ok(base) = lexer.expand(&stage.base_name, &args) else { return };
        if Reference::parse(&base).is_err() {
            let detail = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.base_name
            );
            lint.report(Rule::InvalidDefaultArgInFrom, &stage.location, detail);
        }
    }
}

/// The variables of a `FROM` are arguments that are declared before the first stage.
pub(super) fn check_declared(
    uses: &Uses,
    args: &EnvList,
    capture: &Capture,
    location: &[Range],
    lint: &Linter,
) {
    let declared = || capture.global.keys().map(String::as_str).chain(args.keys());
    for name in &uses.unmatched {
        let known = capture.global.contains_key(name) || EnvList::get(args, name).is_some();
        if known || !lint.wants(Rule::UndefinedArgInFrom) {
            continue;
        }
        let mut detail = format!("FROM argument '{name}' is not declared");
        if let Some(meant) = nearest(name, declared(), Case::Sensitive) {
            detail.push_str(&format!(" (did you mean {meant}?)"));
        }
        lint.report(Rule::UndefinedArgInFrom, location, detail);
    }
}

/// Expands the `--platform` of a `FROM`.
pub(super) fn expand_platform(
    stage: &crate::instruction::Stage,
    lexer: &Lexer,
    args: &EnvList,
    capture: &Capture,
    lint: &Linter,
) -> Result<(Platform, Uses), Error> {
    let mut uses = Uses::default();
    let expanded = lexer.expand_noting(&stage.platform, args, &mut uses);
    check_declared(&uses, args, capture, &stage.location, lint);
    let shown = expanded.as_deref().unwrap_or_default();
    if uses.matched.len() == 1
        && uses.unmatched.is_empty()
        && uses.matched.contains(TARGET_PLATFORM)
        && Env::get(args, TARGET_PLATFORM) == Some(shown)
    {
        let platform = &stage.platform;
        let detail = format!(
            "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
        );
        lint.report(Rule::RedundantTargetPlatform, &stage.location, detail);
    }
    check_constant(stage, shown, &uses, lint);
    let text = match expanded {
        Ok(text) => text,
        Err(error) => {
            let what = "failed to process arguments for platform ";
            return Err(Error::from(error).within(what).at(&stage.location));
        }
    };
    let suggest = |error: Error| {
        let has_near = |name: &&String| nearest(name, args.keys(), Case::Sensitive).is_some();
        match uses.unmatched.iter().find(has_near) {
            Some(name) => error.suggest(name, args.keys(), Case::Sensitive),
            None => error,
        }
    };
    if text.is_empty() {
        let error = Error::from(ConvertError::EmptyPlatform(stage.platform.clone()));
        return Err(suggest(error.at(&stage.location)));
    }
    match Platform::parse(&text) {
        Ok(platform) => Ok((platform, uses)),
        Err(error) => {
            let error = suggest(Error::from(ConvertError::Platform(error)).at(&stage.location));
            Err(error.within(format!("failed to parse platform {}", stage.platform)).at(&stage.location))
        }
    }
}

/// A constant platform is no good, unless the name of the stage tells that it is meant.
fn check_constant(stage: &crate::instruction::Stage, text: &str, uses: &Uses, lint: &Linter) {
    if !uses.matched.is_empty() || !uses.unmatched.is_empty() {
        return;
    }
    let Ok(platform) = Platform::parse(text) else { return };
    if stage.name.contains(&platform.os) || stage.name.contains(&platform.architecture) {
        return;
    }
    let detail = format!("FROM --platform flag should not use constant value {}", crate::values::quote(text));
    lint.report(Rule::FromPlatformFlagConstDisallowed, &stage.location, detail);
}

/// Proxies for steps; they are no part of what a step depends on.
pub(super) fn proxy_env(build_args: &BTreeMap<String, String>) -> Option<ProxyEnv> {
    let mut proxy = ProxyEnv::default();
    let mut any = false;
    for (name, value) in build_args {
        let field = match name.to_lowercase().as_str() {
            "http_proxy" => &mut proxy.http_proxy,
            "https_proxy" => &mut proxy.https_proxy,
            "ftp_proxy" => &mut proxy.ftp_proxy,
            "no_proxy" => &mut proxy.no_proxy,
            "all_proxy" => &mut proxy.all_proxy,
            _ => continue,
        };
        field.clone_from(value);
        any = true;
    }
    any.then_some(proxy)
}
