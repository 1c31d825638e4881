//! Untrusted text on its way to a terminal.
//!
//! A step's output, a vertex' name or a line of a Dockerfile may hold bytes that move the cursor, retitle the window or
//! make the terminal answer. Colours are harmless and wanted in output; everything else that a terminal obeys goes.

/// Replaces every control character by a space: for names and other text of one line.
pub fn text(input: &str) -> String {
    let mut out = String::with_capacity(input.len());
    let mut rest = input.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => skip_escape(&mut rest, None),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Keeps text, tabs, carriage returns and colours of a line of output; drops every other control sequence. A line that
/// sets a colour ends with a reset, so that it cannot colour what follows.
pub fn output(input: &[u8]) -> String {
    let decoded = String::from_utf8_lossy(input);
    let mut out = String::with_capacity(decoded.len());
    let mut rest = decoded.chars();
    let mut colored = false;
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => {
                let mut sequence = String::new();
                skip_escape(&mut rest, Some(&mut sequence));
                if is_color(&sequence) {
                    out.push('\x1b');
                    out.push_str(&sequence);
                    colored = true;
                }
            }
            '\t' | '\r' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    if colored {
        out.push_str("\x1b[0m");
    }
    out
}

/// Reads one escape sequence after its ESC: CSI up to its final byte, strings (OSC, DCS, …) up to their terminator, or
/// one character. What was read, without the ESC, goes to `kept`.
fn skip_escape(rest: &mut std::str::Chars<'_>, mut kept: Option<&mut String>) {
    let mut keep = |c: char| {
        if let Some(kept) = kept.as_deref_mut() {
            kept.push(c);
        }
    };
    let Some(kind) = rest.next() else { return };
    keep(kind);
    match kind {
        '[' => {
            for c in rest.by_ref() {
                keep(c);
                if !matches!(c, '\x20'..='\x3f') {
                    return;
                }
            }
        }
        ']' | 'P' | 'X' | '^' | '_' => {
            let mut escaped = false;
            for c in rest.by_ref() {
                if c == '\x07' || (escaped && c == '\\') {
                    return;
                }
                escaped = c == '\x1b';
            }
        }
        _ => {}
    }
}

/// `[` digits and separators `m`: select graphic rendition.
fn is_color(sequence: &str) -> bool {
    sequence
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix('m'))
        .is_some_and(|parameters| parameters.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_colours_and_drops_the_rest() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain\ttext\r", "plain\ttext\r"),
            (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
            (b"a\x1b[2Jb\x1b[10;10Hc", "abc"),
            (b"a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c", "abc"),
            (b"\x1bP1$r\x1b\\x\x1b7y", "xy"),
            (b"bell\x07 back\x08", "bell back"),
            (b"\xff\x9b2J", "\u{fffd}\u{fffd}2J"),
            (b"\xc2\x9b2Jcut\x1b[", "2Jcut"),
        ];
        for (input, expected) in cases {
            assert_eq!(output(input), expected, "{input:?}");
        }
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(text("RUN a\nb\tc\x1b[1mbold"), "RUN a b cbold");
    }

    proptest! {
        #[test]
        fn nothing_moves_the_cursor(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let shown = output(&input);
            let mut rest = shown.as_str();
            while let Some(at) = rest.find('\x1b') {
                let sequence = &rest[at + 1..];
                let end = sequence.find('m').expect("an escape that is kept is a colour");
                prop_assert!(is_color(&sequence[..=end]));
                rest = &sequence[end + 1..];
            }
            prop_assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\r' | '\x1b')));
        }
    }
}
