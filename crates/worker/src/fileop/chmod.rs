//! Symbolic and octal file modes as `chmod(1)` reads them, for `COPY --chmod`. The umask is 0: clauses without
//! `u`, `g`, `o` or `a` change all classes.

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHER: u32 = 0o007;
const EXEC_ALL: u32 = 0o111;
/// What a clause clears and sets when it names all classes; the sticky bit belongs to none.
const STANDARD: u32 = SET_UID | SET_GID | USER | GROUP | OTHER;

/// The text is no mode. Displays as BuildKit's parser does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid syntax")]
pub struct ModeSyntax;

/// A parsed mode: changes to make one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Clear(u32),
    Set(u32),
    /// Set these bits on folders and on what anyone may execute already.
    SetIfExecutable(u32),
    /// Copy the permissions of the class at `shift` to the classes of `to`.
    Copy {
        shift: u32,
        to: u32,
        op: char,
    },
}

impl ModeChange {
    /// Parses `text`: octal digits, or clauses like `u=rwX,go-w`.
    ///
    /// # Errors
    /// [`ModeSyntax`] when it is neither.
    pub fn parse(text: &str) -> Result<ModeChange, ModeSyntax> {
        let first = text.chars().next().ok_or(ModeSyntax)?;
        if first.is_ascii_digit() {
            let bits = u32::from_str_radix(text, 8).map_err(|_| ModeSyntax)?;
            if bits & !(STANDARD | STICKY) != 0 {
                return Err(ModeSyntax);
            }
            return Ok(ModeChange { steps: vec![Step::Clear(STANDARD | STICKY), Step::Set(bits)] });
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut steps)?;
        }
        Ok(ModeChange { steps })
    }

    /// The permission bits (with set-id and sticky bits) that result for a file that has `mode`.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let before = mode & 0o7777;
        let mut mode = before;
        for step in &self.steps {
            match *step {
                Step::Clear(bits) => mode &= !bits,
                Step::Set(bits) => mode |= bits,
                Step::SetIfExecutable(bits) if is_dir || before & EXEC_ALL != 0 => mode |= bits,
                Step::SetIfExecutable(_) => {}
                Step::Copy { shift, to, op } => {
                    let class = mode >> shift & 0o7;
                    let value = (class << 6 | class << 3 | class) & to;
                    match op {
                        '+' => mode |= value,
                        '-' => mode &= !value,
                        _ => mode = mode & !(to & 0o777) | value,
                    }
                }
            }
        }
        mode
    }
}

fn parse_clause(clause: &str, steps: &mut Vec<Step>) -> Result<(), ModeSyntax> {
    let mut chars = clause.chars().peekable();
    let mut who = 0;
    while let Some(&c) = chars.peek() {
        who |= match c {
            'a' => STANDARD,
            'u' => SET_UID | USER,
            'g' => SET_GID | GROUP,
            'o' => OTHER,
            _ => break,
        };
        chars.next();
    }
    // One clause may have several operations: `u+x-w`.
    loop {
        let op = chars.next().filter(|op| matches!(op, '+' | '-' | '=')).ok_or(ModeSyntax)?;
        operation(op, who, &mut chars, steps)?;
        if chars.peek().is_none() {
            return Ok(());
        }
    }
}

fn operation(
    op: char,
    mut who: u32,
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    steps: &mut Vec<Step>,
) -> Result<(), ModeSyntax> {
    let only_other = who != 0 && who & !OTHER == 0;
    let (mut bits, mut if_executable) = (0, 0);
    let mut copied = false;
    while let Some(&c) = chars.peek() {
        match c {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXEC_ALL,
            'X' if op == '-' => bits |= EXEC_ALL,
            'X' => if_executable |= EXEC_ALL,
            's' if only_other => {}
            's' => bits |= SET_UID | SET_GID,
            't' if only_other => {}
            't' => {
                who |= STICKY;
                bits |= STICKY;
            }
            'u' | 'g' | 'o' => {
                flush(op, who, &mut bits, &mut if_executable, steps);
                let shift = match c {
                    'u' => 6,
                    'g' => 3,
                    _ => 0,
                };
                let to = if who == 0 { 0o777 } else { who & 0o777 };
                steps.push(Step::Copy { shift, to, op });
                copied = true;
            }
            '+' | '-' | '=' => break,
            _ => return Err(ModeSyntax),
        }
        chars.next();
    }
    if op == '=' && bits == 0 && !copied {
        steps.push(Step::Clear(if who == 0 { STANDARD } else { who }));
    }
    flush(op, who, &mut bits, &mut if_executable, steps);
    Ok(())
}

fn flush(op: char, who: u32, bits: &mut u32, if_executable: &mut u32, steps: &mut Vec<Step>) {
    let limit = |bits: u32| if who == 0 { bits } else { bits & who };
    if *bits != 0 {
        match op {
            '-' => steps.push(Step::Clear(limit(*bits))),
            '+' => steps.push(Step::Set(limit(*bits))),
            _ => {
                steps.push(Step::Clear(if who == 0 { STANDARD } else { who }));
                steps.push(Step::Set(limit(*bits)));
            }
        }
    }
    if *if_executable != 0 {
        steps.push(Step::SetIfExecutable(limit(*if_executable)));
    }
    (*bits, *if_executable) = (0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str, mode: u32, is_dir: bool) -> u32 {
        ModeChange::parse(text).unwrap_or_else(|_| panic!("{text}")).apply(mode, is_dir)
    }

    /// The right column is what `chmod(1)` of coreutils makes of it with `umask 0`.
    #[test]
    fn changes_files() {
        for (text, before, after) in [
            ("755", 0o644, 0o755),
            ("4755", 0o644, 0o4755),
            ("u+x", 0o644, 0o744),
            ("go-r", 0o644, 0o600),
            ("+x", 0o644, 0o755),
            ("a=r", 0o777, 0o444),
            ("u=rwX,go=rX", 0o755, 0o755),
            ("u=rwX,go=rX", 0o600, 0o644),
            ("g=u", 0o740, 0o770),
            ("go=u-w", 0o700, 0o755),
            ("u+s", 0o755, 0o4755),
            ("+t", 0o755, 0o1755),
            ("o=", 0o777, 0o770),
            ("u+x-w", 0o644, 0o544),
            ("g+s,o-rwx", 0o755, 0o2750),
            ("-x", 0o755, 0o644),
            ("=", 0o755, 0),
        ] {
            assert_eq!(applied(text, before, false), after, "{text} on {before:o}");
        }
    }

    #[test]
    fn conditional_execute_counts_folders_as_executable() {
        assert_eq!(applied("a+X", 0o644, true), 0o755);
        assert_eq!(applied("a+X", 0o644, false), 0o644);
        assert_eq!(applied("u=rw,a+X", 0o750, false), 0o751);
    }

    #[test]
    fn refuses_nonsense() {
        for text in ["", "9", "77777", "u", "u+q", "rwx", "u+x,", ",", "+x,,-r"] {
            assert_eq!(ModeChange::parse(text), Err(ModeSyntax), "{text:?}");
        }
    }
}
