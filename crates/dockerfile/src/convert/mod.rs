//! Instructions to a graph of build steps, together with the config of the image.
//!
//! The stages that a target needs are found first, the configs of their base images fetched together,
//! then every stage is converted in the order of the file. Which paths of contexts are used is known
//! only after that, so contexts are outputs that are set last.

mod args;
mod base;
mod contexts;
mod copy;
mod copy_remote;
mod dispatch;
mod epoch;
mod error;
mod expand;
mod expose;
mod finish;
mod frontend_options;
mod history;
mod image;
mod metadata;
mod mounts;
mod names;
mod onbuild;
mod options;
mod plan;
mod resolver;
mod resources;
mod run;
mod stages;

pub use error::ConvertError;
pub use finish::{Converted, SbomTargets};
pub use frontend_options::{AttestationOptions, CacheImport, FrontendOptions, OptionError, SbomOptions};
pub use options::{ConvertOptions, NoCache};
pub use resolver::{ImageAnswer, ImageConfigRequest, ImageStore, MainContext, ResolvedImage, Resolver};

use crate::error::Error;
use crate::instruction::Program;
use crate::lint::{
    Findings, LintConfig, LintError, LintReport, Linter, Rule, check_command_casing, check_stage_names,
};
use crate::location::{Range, merge};
use crate::outline::{Capture, Outline};
use crate::parser::{ParseError, find_directive, parse};
use crate::shell::Lexer;
use contexts::LateLocal;
use kiln_llb::{EnvList, LateOutput, ProxyEnv};
use kiln_oci::Timestamp;
use kiln_proto::pb;
use options::Platforms;
use stages::{StageId, Stages};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

/// Converts the target of a Dockerfile. Violations of checks go to `findings`, also when this fails;
/// without it nothing is checked.
pub async fn convert(
    text: &[u8],
    options: &ConvertOptions,
    resolver: &dyn Resolver,
    findings: Option<&Findings>,
) -> Result<Converted, Error> {
    let (converter, target) = Converter::run(text, options, resolver, findings).await?;
    Ok(converter.into_converted(target))
}

/// What can be given to the target of a Dockerfile.
pub async fn outline(
    text: &[u8],
    options: &ConvertOptions,
    resolver: &dyn Resolver,
    findings: Option<&Findings>,
) -> Result<Outline, Error> {
    let (converter, target) = Converter::run(text, options, resolver, findings).await?;
    Ok(converter.outline(target, text))
}

/// Checks a Dockerfile; without a target all its stages.
pub async fn lint(text: &[u8], options: &ConvertOptions, resolver: &dyn Resolver) -> LintReport {
    let findings = Findings::default();
    let options = ConvertOptions { all_stages: options.target.is_empty(), ..options.clone() };
    let result = Converter::run(text, &options, resolver, Some(&findings)).await;
    let error = result
        .err()
        .map(|error| LintError { message: error.to_string(), location: merge(error.locations()) });
    let source = options.source_map.as_deref().map(pb::SourceInfo::from).unwrap_or_default();
    LintReport { source, findings: findings.take(), error }
}

/// One conversion on its way.
struct Converter<'a> {
    options: &'a ConvertOptions,
    resolver: &'a dyn Resolver,
    lint: Linter,
    lexer: Lexer,
    platforms: Platforms,
    /// Those of the options; a time that had to be looked up is put in here.
    build_args: BTreeMap<String, String>,
    /// Platform arguments and those before the first stage.
    global_args: EnvList,
    /// What they tell about the outline; stages begin with it.
    global_capture: Capture,
    proxy: Option<ProxyEnv>,
    /// The time that everything gets.
    epoch: Option<Timestamp>,
    stages: Stages,
    main_context: LateOutput,
    /// Bytes that expansions brought in so far.
    expanded: AtomicUsize,
    /// Patterns of the main context's ignore file.
    ignore: Vec<String>,
    /// Named contexts from the client.
    local_contexts: Vec<LateLocal>,
}

impl<'a> Converter<'a> {
    async fn run(
        text: &[u8],
        options: &'a ConvertOptions,
        resolver: &'a dyn Resolver,
        findings: Option<&Findings>,
    ) -> Result<(Self, StageId), Error> {
        let (program, lint) = read(text, options, findings)?;
        let lexer = Lexer::new(program.escape);
        let platforms = options.platforms();
        let target_name = match (options.target.as_str(), program.stages.last()) {
            ("", Some(last)) => last.name.clone(),
            (target, _) => target.to_owned(),
        };
        let platform_args = args::platform_args(&platforms, &options.build_args, &target_name);
        args::check_default_bases(&program, &lexer, &platform_args, &lint);
        let (global_args, global_capture) =
            args::global_args(platform_args, &lexer, &program.global_args, &options.build_args)?;
        let mut converter = Self {
            proxy: args::proxy_env(&options.build_args),
            build_args: options.build_args.clone(),
            options,
            resolver,
            lint,
            lexer,
            platforms,
            global_args,
            global_capture,
            epoch: None,
            stages: Stages::default(),
            main_context: LateOutput::new("build context", None),
            expanded: AtomicUsize::new(0),
            ignore: Vec::new(),
            local_contexts: Vec::new(),
        };
        converter.resolve_epoch(&program.stages).await?;
        converter.add_stages(program.stages)?;
        let target = converter.find_target()?;
        converter.link_stages()?;
        let reachable = converter.resolve_stages(target).await?;
        let main_context = converter.load_main_context().await?;
        converter.dispatch_stages(&reachable, target)?;
        converter.finish(target, main_context)?;
        Ok((converter, target))
    }
}

/// Everything that needs nothing but the text.
fn read(
    text: &[u8],
    options: &ConvertOptions,
    findings: Option<&Findings>,
) -> Result<(Program, Linter), Error> {
    if text.is_empty() {
        return Err(ParseError::Empty.into());
    }
    let config = match &options.lint {
        Some(config) => config.clone(),
        None => {
            let directive = find_directive("check", text);
            LintConfig::parse(directive.as_ref().map(|directive| directive.first_word()).unwrap_or_default())?
        }
    };
    let lint = match findings {
        Some(findings) => Linter::new(config, findings.clone()),
        None => Linter::off(),
    };
    let dockerfile = parse(text)?;
    for line in &dockerfile.empty_continuations {
        lint.report(Rule::NoEmptyContinuation, &[Range::line(*line)], "Empty continuation line".to_owned());
    }
    let program = Program::build(&dockerfile, &lint)?;
    if program.stages.is_empty() {
        return Err(ConvertError::NoStages.into());
    }
    check_stage_names(&program.stages, &lint);
    check_command_casing(&program.stages, &lint);
    Ok((program, lint))
}

#[cfg(test)]
mod tests;
