//! `HEALTHCHECK`.

use super::InstructionError;
use super::flags::{FlagKind, Flags};
use super::run::handle_json;
use crate::error::Error;
use crate::values::{parse_duration, parse_int};
use kiln_oci::HealthcheckConfig;

/// The shortest interval, in nanoseconds.
const INTERVAL_NANOS_MIN: i64 = 1_000_000;

pub(super) fn build(flags: &[String], words: &[String], json: bool) -> Result<HealthcheckConfig, Error> {
    let Some((kind, command)) = words.split_first() else {
        return Err(InstructionError::AtLeastOneArgument("HEALTHCHECK").into());
    };
    let kind = kind.to_uppercase();
    if kind == "NONE" {
        if !command.is_empty() {
            return Err(InstructionError::HealthcheckNone.into());
        }
        return Ok(HealthcheckConfig { test: vec![kind], ..HealthcheckConfig::default() });
    }
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"]
        .map(|name| (name, FlagKind::Text));
    let flags = Flags::parse(flags, &known)?;
    if kind != "CMD" {
        return Err(InstructionError::HealthcheckType(kind).into());
    }
    let command = handle_json(command, json);
    if command.is_empty() {
        return Err(InstructionError::HealthcheckCommand.into());
    }
    let mut test = vec![if json { kind } else { "CMD-SHELL".to_owned() }];
    test.extend(command);
    Ok(HealthcheckConfig {
        test,
        interval: interval(&flags, "interval")?,
        timeout: interval(&flags, "timeout")?,
        start_period: interval(&flags, "start-period")?,
        start_interval: interval(&flags, "start-interval")?,
        retries: retries(flags.text("retries").unwrap_or_default())?,
    })
}

fn interval(flags: &Flags, name: &str) -> Result<i64, InstructionError> {
    match flags.text(name) {
        None | Some("") => Ok(0),
        Some(value) => match parse_duration(value).map_err(InstructionError::Duration)? {
            nanos if nanos != 0 && nanos < INTERVAL_NANOS_MIN => {
                Err(InstructionError::HealthcheckInterval(name.to_owned()))
            }
            nanos => Ok(nanos),
        },
    }
}

fn retries(value: &str) -> Result<i64, InstructionError> {
    if value.is_empty() {
        return Ok(0);
    }
    match parse_int(value, 32).map_err(InstructionError::Number)? {
        negative @ ..0 => Err(InstructionError::HealthcheckRetries(negative)),
        retries => Ok(retries),
    }
}
