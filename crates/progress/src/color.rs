//! Colours of the live display. A role (`run`, `error`, …) is resolved to an escape sequence last, when it is drawn.

/// `ESC [ 0 m`: ends a colour.
pub const RESET: &str = "\x1b[0m";
/// Draws the output of a running step less bright.
pub const FAINT: &str = "\x1b[2m";
/// The colour of the warnings summary, which no setting changes.
pub const YELLOW: &str = "\x1b[33m";

const NAMES: [(&str, &str); 17] = [
    ("default", "39"),
    ("black", "30"),
    ("red", "31"),
    ("green", "32"),
    ("yellow", "33"),
    ("blue", "34"),
    ("magenta", "35"),
    ("cyan", "36"),
    ("white", "37"),
    ("light-black", "90"),
    ("light-red", "91"),
    ("light-green", "92"),
    ("light-yellow", "93"),
    ("light-blue", "94"),
    ("light-magenta", "95"),
    ("light-cyan", "96"),
    ("light-white", "97"),
];

/// The escape sequence of each role; empty for no colour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Colors {
    /// A step that is done.
    pub run: String,
    /// A step that was cancelled, and warnings below a step.
    pub cancel: String,
    /// A step that failed.
    pub error: String,
    /// Output of running steps.
    pub faint: String,
    /// The summary of warnings at the end.
    pub summary: String,
}

impl Colors {
    /// No colour at all, which is what `NO_COLOR` asks for.
    pub fn none() -> Self {
        let none = String::new;
        Self { run: none(), cancel: none(), error: none(), faint: none(), summary: none() }
    }

    /// The defaults, changed by the text of `BUILDKIT_COLORS`: `run=green:error=light-red:cancel=255,165,0`. Also returns
    /// one message for each part that could not be understood; the rest still counts.
    pub fn parse(setting: Option<&str>) -> (Self, Vec<String>) {
        let mut colors = Self {
            run: sequence("34"),
            cancel: sequence("33"),
            error: sequence("31"),
            faint: FAINT.to_owned(),
            summary: YELLOW.to_owned(),
        };
        let mut problems = Vec::new();
        for part in setting.unwrap_or_default().split(':').filter(|part| !part.is_empty()) {
            if let Err(problem) = colors.set(part.trim_matches('"')) {
                problems.push(problem);
            }
        }
        (colors, problems)
    }

    fn set(&mut self, part: &str) -> Result<(), String> {
        let (role, value) = part
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| format!("BUILDKIT_COLORS: `{part}` is not of the form role=colour"))?;
        let color = resolve(value).ok_or_else(|| {
            format!(
                "BUILDKIT_COLORS: `{value}` is neither the name of a colour nor three numbers from 0 to 255"
            )
        })?;
        match role.to_ascii_lowercase().as_str() {
            "run" => self.run = color,
            "cancel" => self.cancel = color,
            "error" => self.error = color,
            // Known, and drawn by nothing: upstream keeps it for later use.
            "warning" => {}
            _ => return Err(format!("BUILDKIT_COLORS: `{role}` is none of run, cancel, error, warning")),
        }
        Ok(())
    }
}

fn sequence(code: &str) -> String {
    format!("\x1b[{code}m")
}

fn resolve(value: &str) -> Option<String> {
    let lower = value.to_ascii_lowercase();
    if let Some((_, code)) = NAMES.iter().find(|(name, _)| *name == lower) {
        return Some(sequence(code));
    }
    let parts: Vec<u8> = value.split(',').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?;
    let [red, green, blue] = parts[..] else { return None };
    // The 6×6×6 cube of the 256 colour palette, which more terminals have than 24-bit colours.
    let step = |level: u8| level / 43;
    Some(sequence(&format!("38;5;{}", 16 + 36 * step(red) + 6 * step(green) + step(blue))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_docker_build() {
        let (colors, problems) = Colors::parse(None);
        assert_eq!((colors.run.as_str(), colors.error.as_str()), ("\x1b[34m", "\x1b[31m"));
        assert_eq!(colors.cancel, "\x1b[33m");
        assert!(problems.is_empty());
    }

    #[test]
    fn names_and_numbers_are_taken() {
        let (colors, problems) = Colors::parse(Some("run=Light-Cyan:ERROR=255,0,0:cancel=0,0,95"));
        assert_eq!(colors.run, "\x1b[96m");
        assert_eq!(colors.error, "\x1b[38;5;196m");
        assert_eq!(colors.cancel, "\x1b[38;5;18m");
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn what_is_not_understood_is_told_and_skipped() {
        let (colors, problems) =
            Colors::parse(Some("run=pink:what:error=1,2:cancel=1,2,256:size=red:error=green"));
        assert_eq!(problems.len(), 5, "{problems:?}");
        assert_eq!(colors.run, "\x1b[34m");
        assert_eq!(colors.error, "\x1b[32m");
    }
}
