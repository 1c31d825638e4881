//! Signals by the names that clients use, without `SIG`. Numbers are Linux's.

const NAMES: [(&str, i32); 34] = [
    ("ABRT", 6),
    ("ALRM", 14),
    ("BUS", 7),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("FPE", 8),
    ("HUP", 1),
    ("ILL", 4),
    ("INT", 2),
    ("IO", 29),
    ("IOT", 6),
    ("KILL", 9),
    ("PIPE", 13),
    ("POLL", 29),
    ("PROF", 27),
    ("PWR", 30),
    ("QUIT", 3),
    ("SEGV", 11),
    ("STKFLT", 16),
    ("STOP", 19),
    ("SYS", 31),
    ("TERM", 15),
    ("TRAP", 5),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("USR1", 10),
    ("USR2", 12),
    ("VTALRM", 26),
    ("WINCH", 28),
    ("XCPU", 24),
    ("XFSZ", 25),
];

/// First and last of the real-time signals.
const REAL_TIME: (i32, i32) = (34, 64);

/// The signal of that name.
pub(super) fn number(name: &str) -> Option<i32> {
    let (first, last) = REAL_TIME;
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |text: &str| text.parse::<i32>().ok().filter(|offset| *offset > 0);
    let number = match name {
        "RTMIN" => first,
        "RTMAX" => last,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(text), _) => first + offset(text)?,
            (_, Some(text)) => last - offset(text)?,
            _ => return None,
        },
    };
    (first..=last).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_and_numbers() {
        assert_eq!(number("TERM"), Some(15));
        assert_eq!(number("RTMIN+3"), Some(37));
        assert_eq!(number("RTMAX-1"), Some(63));
        for bad in ["SIGTERM", "", "RTMIN+0", "RTMIN+31", "RTMAX-99999999999"] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }
}
