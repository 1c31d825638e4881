//! Names of steps in progress displays: `[linux/arm64 build 2/5] RUN make`.

use super::stages::StageState;
use crate::shell::{Env, Lexer};
use kiln_oci::Platform;

/// `text` with what tells stage and number of the step in front of it. Counts the step.
pub(super) fn step_name(
    stage: &mut StageState,
    text: &str,
    multi_platform: bool,
    platform: Option<&Platform>,
    env: &dyn Env,
) -> String {
    if stage.step_count == 0 {
        return text.to_owned();
    }
    stage.step_index += 1;
    let mut prefix = String::new();
    if let Some(platform) = platform.filter(|_| multi_platform) {
        prefix.push_str(&format!("{platform}{} ", cross_target(platform, env)));
    }
    if !stage.shown_name.is_empty() {
        prefix.push_str(&format!("{} ", stage.shown_name));
    }
    let width = stage.step_count.to_string().len();
    let onbuild = if stage.step_is_onbuild { "ONBUILD " } else { "" };
    format!("[{prefix}{:width$}/{}] {onbuild}{text}", stage.step_index, stage.step_count)
}

/// The platform that a step compiles for, if it is another one than it runs on.
fn cross_target(base: &Platform, env: &dyn Env) -> String {
    let Some(mut target) = target_of(env) else { return String::new() };
    if target.os.is_empty() {
        target.os.clone_from(&base.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&base.architecture);
    }
    let target = target.normalized();
    if target.os != base.os {
        return format!("->{target}");
    }
    match (target.architecture != base.architecture, target.variant.as_str()) {
        (false, _) => String::new(),
        (true, "") => format!("->{}", target.architecture),
        (true, variant) => format!("->{}/{variant}", target.architecture),
    }
}

fn target_of(env: &dyn Env) -> Option<Platform> {
    let mut parts = Platform::default();
    let mut any = false;
    for key in env.keys() {
        let value = env.get(key).unwrap_or_default();
        let part = match key {
            "TARGETPLATFORM" => match Platform::parse(value) {
                Ok(platform) => return Some(platform),
                Err(_) => continue,
            },
            "TARGETOS" => &mut parts.os,
            "TARGETARCH" => &mut parts.architecture,
            "TARGETVARIANT" => &mut parts.variant,
            _ => continue,
        };
        value.clone_into(part);
        any = true;
    }
    any.then_some(parts)
}

/// The code of an instruction with its variables expanded, if they can be.
pub(super) fn shown_code(lexer: &Lexer, code: &str, env: &dyn Env) -> String {
    uppercase_keyword(&lexer.expand(code, env).unwrap_or_else(|_| code.to_owned()))
}

fn uppercase_keyword(code: &str) -> String {
    match code.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => code.to_uppercase(),
    }
}

/// The first line of a heredoc, for the name of its step.
pub(super) fn heredoc_summary(body: &str) -> String {
    let body = body.trim().replace("\r\n", "\n");
    match body.split_once('\n') {
        Some((first, _)) => format!("{first}..."),
        None => body,
    }
}
