//! Names of signals, as `STOPSIGNAL` accepts them: with and without `SIG`, in any case, or a number.

const NAMES: [&str; 35] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN",
];

/// Real-time signals can be counted from both ends.
const RTMIN_OFFSET_MAX: u32 = 15;
const RTMAX_OFFSET_MAX: u32 = 14;

/// Whether `text` names a signal.
pub(crate) fn is_signal(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return text.parse::<i64>().is_ok_and(|number| number != 0);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, max: u32| {
        name.strip_prefix(prefix)
            .filter(|number| !number.starts_with(['0', '+']))
            .and_then(|number| number.parse::<u32>().ok())
            .is_some_and(|number| (1..=max).contains(&number))
    };
    NAMES.contains(&name)
        || name == "RTMAX"
        || offset("RTMIN+", RTMIN_OFFSET_MAX)
        || offset("RTMAX-", RTMAX_OFFSET_MAX)
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn signals() {
        for good in ["SIGTERM", "kill", "9", "SIGRTMIN+3", "rtmax-14", "RTMAX", "SIGRTMIN"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "SIGFOO", "RTMIN+16", "RTMAX-0", "RTMIN+03", "SIG"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
