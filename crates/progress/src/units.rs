//! Amounts as the displays write them.

const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/// A byte count in decimal units with two digits after the point: `123B`, `1.23kB`, `5.00GB`.
pub fn bytes(count: i64) -> String {
    let magnitude = count.unsigned_abs();
    let mut unit = 0;
    let mut base = 1u64;
    while unit + 1 < UNITS.len() && magnitude / 1000 >= base {
        base *= 1000;
        unit += 1;
    }
    if unit == 0 {
        return format!("{count}B");
    }
    format!("{:.2}{}", count as f64 / base as f64, UNITS[unit])
}

/// `current / total`, or `current` alone where the total is not known; nothing where nothing is known.
pub fn amount(current: i64, total: i64) -> String {
    match (current, total) {
        (0, 0) => String::new(),
        (current, 0) => bytes(current),
        (current, total) => format!("{} / {}", bytes(current), bytes(total)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_largest_unit() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (1234, "1.23kB"),
            (999_999, "1000.00kB"),
            (1_000_000, "1.00MB"),
            (-1500, "-1.50kB"),
            (i64::MAX, "9.22EB"),
        ];
        for (count, expected) in cases {
            assert_eq!(bytes(count), expected, "{count}");
        }
        assert_eq!(amount(5, 0), "5B");
        assert_eq!(amount(0, 2000), "0B / 2.00kB");
        assert_eq!(amount(0, 0), "");
    }
}
