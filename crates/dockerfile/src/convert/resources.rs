//! Limits for the processes of steps, among the frontend attributes.

use super::frontend_options::{Attrs, OptionError};
use crate::values::{fields, parse_int, parse_uint, quote};
use kiln_llb::{LinuxResources, Ulimit};

/// Highest number of a processor or memory node.
const CPU_MAX: i64 = 8192;

const ULIMIT_NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

pub(super) fn ulimits(record: &str) -> Result<Vec<Ulimit>, OptionError> {
    if record.is_empty() {
        return Ok(Vec::new());
    }
    let fields = fields(record).map_err(|error| OptionError::Record("ulimit", error))?;
    fields.iter().map(|field| ulimit(field)).collect()
}

fn ulimit(field: &str) -> Result<Ulimit, OptionError> {
    let (name, values) = field.split_once('=').ok_or_else(|| OptionError::Ulimit(field.to_owned()))?;
    if !ULIMIT_NAMES.contains(&name) {
        return Err(OptionError::UlimitType(name.to_owned()));
    }
    let number = |word: &str| parse_int(word, 64).map_err(|error| OptionError::Number("ulimit", error));
    let (soft, hard) = match values.split(':').collect::<Vec<_>>().as_slice() {
        [soft] => (number(soft)?, None),
        [soft, hard] => {
            let hard = number(hard)?;
            (number(soft)?, Some(hard))
        }
        _ => return Err(OptionError::UlimitValues(values.to_owned())),
    };
    let hard = hard.unwrap_or(soft);
    match (soft, hard) {
        (-1, hard) if hard != -1 => Err(OptionError::UlimitUnlimited(hard)),
        (soft, hard) if hard != -1 && soft > hard => Err(OptionError::UlimitOrder { soft, hard }),
        _ => Ok(Ulimit { name: name.to_owned(), soft, hard }),
    }
}

pub(super) fn linux_resources(attrs: Attrs<'_>) -> Result<Option<LinuxResources>, OptionError> {
    let get = |key: &'static str| attrs.get(key);
    let invalid = |key, reason: &str| OptionError::Resource {
        key,
        value: get(key).to_owned(),
        reason: reason.to_owned(),
    };
    let positive = |key: &'static str| match get(key) {
        "" => Ok(0),
        word => match parse_int(word, 64) {
            Ok(1..) => parse_int(word, 64).map_err(|error| invalid(key, &error.to_string())),
            Ok(_) => Err(invalid(key, "must be > 0")),
            Err(error) => Err(invalid(key, &error.to_string())),
        },
    };
    let count = |key: &'static str| match get(key) {
        "" => Ok(0),
        word => match parse_uint(word, 10, 64) {
            Ok(0) => Err(invalid(key, "must be > 0")),
            Ok(number) => Ok(number),
            Err(error) => Err(invalid(key, &error.to_string())),
        },
    };
    let set = |key: &'static str| match check_cpuset(get(key)) {
        Ok(()) => Ok(get(key).to_owned()),
        Err(reason) => Err(invalid(key, &reason)),
    };
    let memory = positive("memory")?;
    let memory_swap = match get("memswap") {
        "" => 0,
        word => match parse_int(word, 64) {
            Ok(swap) if swap == -1 || swap > 0 => swap,
            Ok(_) => return Err(invalid("memswap", "must be -1 (unlimited) or > 0")),
            Err(error) => return Err(invalid("memswap", &error.to_string())),
        },
    };
    let resources = LinuxResources {
        memory,
        memory_swap,
        cpu_shares: count("cpushares")?,
        cpu_period: count("cpuperiod")?,
        cpu_quota: positive("cpuquota")?,
        cpuset_cpus: set("cpusetcpus")?,
        cpuset_mems: set("cpusetmems")?,
    };
    Ok((resources != LinuxResources::default()).then_some(resources))
}

fn check_cpuset(list: &str) -> Result<(), String> {
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number = |word: &str| word.trim().parse::<i64>().ok().filter(|number| *number >= 0);
        match part.split_once('-') {
            None => match number(part) {
                None => return Err(format!("invalid cpuset element {}", quote(part))),
                Some(number) if number > CPU_MAX => {
                    return Err(format!("cpuset element {} exceeds maximum {CPU_MAX}", quote(part)));
                }
                Some(_) => {}
            },
            Some((low, high)) => match (number(low), number(high)) {
                (Some(low), Some(high)) if low <= high && high <= CPU_MAX => {}
                (Some(low), Some(high)) if low <= high => {
                    return Err(format!("cpuset range {} exceeds maximum {CPU_MAX}", quote(part)));
                }
                _ => return Err(format!("invalid cpuset range {}", quote(part))),
            },
        }
    }
    Ok(())
}
